"""Images inside tar archives, found by one look at the archives' indices."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from had.errors import HadError
from had.tasks.images.sources import SUFFIXES, Images

log = logging.getLogger(__name__)

_LABEL = ".cls"  # a file with the class beside its image, of the same name


@dataclass(frozen=True)
class Members:
    """The images of some archives, as arrays: one row an image, in the order of the archives.

    Attributes:
        shard: index of the archive.
        start: where in it the image's bytes begin.
        size: how many they are.
        label: its class.
    """

    shard: np.ndarray
    start: np.ndarray
    size: np.ndarray
    label: np.ndarray


class ShardImages(Images):
    """Images in tar archives, read in place.

    The class of an image is what a `.cls` file of the same name says (as in WebDataset's archives),
    else the name of its archive (one archive a class, as ILSVRC2012's are).
    """

    def __init__(self, shards: Sequence[Path], members: Members, source: str) -> None:
        super().__init__([str(label) for label in members.label], source)
        self._shards, self._members = list(shards), members

    @classmethod
    def open_all(cls, shards: Sequence[Path], cache: Path, source: str) -> ShardImages:
        """Index archives, or take the index that an earlier run has left in the cache.

        Raises:
            HadError: an archive is damaged, or there is no image in any of them.
        """
        file = cache / "images" / f"shards-{_key(shards)}.npz"
        if not file.is_file():
            log.info("%s: indexing %d archives once, into %s", source, len(shards), file)
            members = index_shards(shards)
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_name(f"{file.stem}.{os.getpid()}.npz")
            np.savez(partial, **vars(members))
            partial.replace(file)
        with np.load(file) as stored:
            members = Members(**stored)
        if not len(members.label):
            raise HadError(f"{source}: no images in its {len(shards)} archives")
        return cls(shards, members, source)

    def open(self, row: int) -> IO[bytes]:
        # Opened anew for each image: a descriptor shared by workers would share its position.
        with self._shards[self._members.shard[row]].open("rb") as archive:
            archive.seek(int(self._members.start[row]))
            return io.BytesIO(archive.read(int(self._members.size[row])))

    def where(self, row: int) -> str:
        shard, start = self._shards[self._members.shard[row]], self._members.start[row]
        return f"{shard}, byte {start}"

    def stamp(self, row: int) -> str:
        return f"{self.where(row)} {self._members.size[row]}"


def index_shards(shards: Sequence[Path]) -> Members:
    """Where the images lie in archives, and their classes.

    Raises:
        HadError: an archive is damaged.
    """
    rows = [(index, *member) for index, shard in enumerate(shards) for member in _index(shard)]
    columns = list(zip(*rows, strict=True)) or [()] * 4
    shard, start, size = (np.array(column, dtype=np.int64) for column in columns[:3])
    return Members(shard, start, size, np.array(columns[3], dtype=str))


def _index(shard: Path) -> list[tuple[int, int, str]]:
    """Start, size and class of each image of one archive."""
    images: list[tuple[str, int, int]] = []
    labels: dict[str, str] = {}
    try:
        with tarfile.open(shard, "r:") as archive:  # uncompressed: images are read in place
            for member in archive:
                name, suffix = os.path.splitext(member.name)
                if suffix.lower() in SUFFIXES:
                    images.append((name, member.offset_data, member.size))
                elif suffix == _LABEL and (content := archive.extractfile(member)) is not None:
                    labels[name] = content.read().decode("ascii", "replace").strip()
    except (tarfile.TarError, OSError) as error:
        raise HadError(f"{shard}: not a readable tar archive ({error})") from error
    return [(start, size, labels.get(name, shard.stem)) for name, start, size in images]


def _key(shards: Sequence[Path]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for shard in shards:
        about = shard.stat()
        digest.update(f"{shard} {about.st_size} {about.st_mtime_ns}\n".encode())
    return digest.hexdigest()
