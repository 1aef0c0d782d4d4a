"""Decoded images: once into a file of pixels that is mapped into memory, or anew for each batch."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from had.errors import HadError
from had.tasks.base import Batch, EncodedDataset
from had.tasks.images.decode import UnreadableImageError, decode
from had.tasks.images.sources import Images

log = logging.getLogger(__name__)

PIXELS = "pixel_values"

_FORMAT = 1  # raise when decoding changes, so that older files are not reused
_CHUNK = 1024  # images in flight while a set is decoded
_NAMED = 3  # unreadable images named in a message
_SPARE = 1.05  # free space asked for, times what is needed


@dataclass(frozen=True)
class Decoding:
    """How a task wants its images decoded.

    Attributes:
        side: pixels of the square that is kept of each image.
        interpolation: PIL's filter that scales images to it.
        cache: folder for decoded sets.
        strict: refuse a set with unreadable images instead of leaving them out.
        workers: processes that decode for the loader.
    """

    side: int
    interpolation: str
    cache: Path
    strict: bool
    workers: int

    def __call__(self, images: Images, row: int) -> Tensor:
        """One image, uint8 (3, side, side)."""
        return decode(images.open(row), self.side, self.interpolation)


Decoder = Callable[[Images, Tensor, Decoding], EncodedDataset]


def decode_once(images: Images, labels: Tensor, how: Decoding) -> EncodedDataset:
    """All images decoded into one file, mapped into memory: later runs find it there.

    Args:
        images: what to decode.
        labels: (images,) int64.
        how: size, filter, place.

    Returns:
        pixel_values uint8 (images, 3, side, side), without those that cannot be read.

    Raises:
        HadError: an image cannot be read and `how.strict` is set, or none can; or the disk is full.
    """
    folder = how.cache / "images" / _key(images, how)
    if not folder.is_dir():
        _fill(folder, images, how)
    rows = np.load(folder / "rows.npy")
    unreadable = json.loads((folder / "unreadable.json").read_text())
    report_unreadable(images.source, unreadable, len(images), how.strict)
    # Copy on write: the file never changes, and torch does not warn of memory it may not write.
    pixels = np.load(folder / "pixels.npy", mmap_mode="c")
    return EncodedDataset(
        {PIXELS: torch.from_numpy(pixels)[: len(rows)]}, labels[torch.from_numpy(rows)]
    )


def report_unreadable(source: str, unreadable: Sequence[str], total: int, strict: bool) -> None:
    """Say which images are left out.

    Raises:
        HadError: nothing may be left out, or nothing is left.
    """
    if not unreadable:
        return
    named = "; ".join(unreadable[:_NAMED])
    rest = f"; and {len(unreadable) - _NAMED} more" if len(unreadable) > _NAMED else ""
    text = f"{source}: {len(unreadable)} of {total} images cannot be read: {named}{rest}"
    if strict:
        raise HadError(f"{text}; repair or remove them, or leave them out with task.strict=false")
    if len(unreadable) == total:
        raise HadError(f"{text}; there is nothing left")
    log.warning("%s; left out (task.strict=true refuses them)", text)


def _key(images: Images, how: Decoding) -> str:
    """Hash of everything that determines the pixels."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{_FORMAT} {how.side} {how.interpolation} {len(images)}\n".encode())
    for row in range(len(images)):
        digest.update(f"{images.stamp(row)}\n".encode())
    return digest.hexdigest()


def _fill(folder: Path, images: Images, how: Decoding) -> None:
    """Decode into a folder beside, which takes its place when it is complete."""
    shape = (len(images), 3, how.side, how.side)
    _check_space(how.cache, images.source, int(np.prod(shape)))
    log.info("%s: decoding %d images once, into %s", images.source, len(images), folder)
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    started, rows, unreadable = time.perf_counter(), [], []
    pixels = np.lib.format.open_memmap(
        partial / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape
    )
    for row, image in enumerate(_decoded(images, how)):
        if isinstance(image, Tensor):
            pixels[len(rows)] = image.numpy()
            rows.append(row)
        else:
            unreadable.append(f"{images.where(row)} ({image})")
    pixels.flush()
    np.save(partial / "rows.npy", np.array(rows, dtype=np.int64))
    (partial / "unreadable.json").write_text(json.dumps(unreadable))
    _publish(partial, folder)
    log.info("decoded %.0f images/s", len(images) / (time.perf_counter() - started))


def _decoded(images: Images, how: Decoding) -> Iterator[Tensor | UnreadableImageError]:
    """The images in order, decoded by threads: PIL leaves the interpreter's lock meanwhile."""

    def attempt(row: int) -> Tensor | UnreadableImageError:
        try:
            return how(images, row)
        except UnreadableImageError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for first in range(0, len(images), _CHUNK):
            yield from threads.map(attempt, range(first, min(first + _CHUNK, len(images))))


def _publish(partial: Path, folder: Path) -> None:
    """Give a finished folder its name; another process may have been faster with the same."""
    try:
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(partial)


def _check_space(cache: Path, source: str, needed: int) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if free < needed * _SPARE:
        raise HadError(
            f"{source}: decoded images take {needed / 2**30:.1f} GiB, {cache} has "
            f"{free / 2**30:.1f} GiB left; set paths.cache elsewhere, or task.decode=each_time"
        )


class DecodedEachTime(EncodedDataset):
    """Images decoded batch by batch, in the loader's workers; nothing is kept.

    A batch lacks the images that cannot be read: they are named when they turn up. Its columns are
    numbers alone, since strings would be copied into every worker's memory.
    """

    def __init__(self, images: Images, labels: Tensor, how: Decoding) -> None:
        names = [hashlib.blake2b(where.encode(), digest_size=7) for where in _names(images)]
        numbers = [int.from_bytes(name.digest()) for name in names]
        super().__init__({"row": torch.arange(len(images)), "name": torch.tensor(numbers)}, labels)
        self._images, self._how = images, how
        self.workers = how.workers

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        pixels, kept = [], []
        for row in map(int, indices):
            try:
                pixels.append(self._how(self._images, row))
                kept.append(row)
            except UnreadableImageError as error:
                unreadable = [f"{self._images.where(row)} ({error})"]
                report_unreadable(self._images.source, unreadable, len(self), self._how.strict)
        if not kept:
            raise HadError(f"{self._images.source}: no image of a whole batch can be read")
        return {"inputs": {PIXELS: torch.stack(pixels)}, "labels": self.labels[kept]}


def _names(images: Images) -> Iterator[str]:
    return (images.where(row) for row in range(len(images)))


DECODERS: dict[str, Decoder] = {"once": decode_once, "each_time": DecodedEachTime}
