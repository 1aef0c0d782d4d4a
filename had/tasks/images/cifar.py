"""CIFAR-10 and CIFAR-100 from the official Python files."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from had.errors import HadError
from had.tasks.hub import HubUnavailableError
from had.tasks.images.hub import HubImages
from had.tasks.images.sources import ArrayImages, Images
from had.tasks.images.task import ImageTask

_SHAPE = (3, 32, 32)  # of an image in the files, colour by colour
_KNOWN = {  # what the official files are made of, under the names of old and new numpy
    *(("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")),
    *(("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")),
}


@dataclass(kw_only=True, eq=False)
class CifarTask(ImageTask):
    """60,000 images of 32 x 32 pixels.

    Attributes:
        path: the unpacked archive, with the files below in it.
        train_files: pickled batches of training images.
        eval_file: the pickled batch of test images.
        meta_file: holds the names of the classes.
        label_key: where a batch has its labels.
        names_key: where the meta file has the names of the classes.
        hub: the same data set on the Hub, asked where there is no such folder.
        hub_image: its column of images.
        hub_label: its column of labels.
    """

    path: str
    train_files: list[str]
    eval_file: str
    meta_file: str
    label_key: str
    names_key: str
    hub: str
    hub_image: str
    hub_label: str

    def _find(self) -> tuple[Images, Mapping[str, Images]]:
        root = Path(self.path).expanduser()
        if root.is_dir():
            names = list(self._entry(root / self.meta_file, self.names_key))
            train = self._batches(root, self.train_files, names)
            return train, {"": self._batches(root, [self.eval_file], names)}
        try:
            train, test = (
                HubImages.load(self.hub, split, self.hub_image, self.hub_label)
                for split in ("train", "test")
            )
        except HubUnavailableError as error:
            raise HadError(
                f"task.path={self.path}: no such folder, and the Hub has no {self.hub} in reach "
                f"({error}); unpack the official Python archive there, or go online"
            ) from error
        return train, {"": test}

    def _batches(self, root: Path, files: Sequence[str], names: Sequence[str]) -> ArrayImages:
        pixels = [_pixels(root / file, self._entry(root / file, "data")) for file in files]
        labels = [
            int(label) for file in files for label in self._entry(root / file, self.label_key)
        ]
        together = np.concatenate(pixels)
        if len(labels) != len(together):
            raise HadError(f"{root}: {len(labels)} labels for {len(together)} images")
        beyond = [label for label in labels if not 0 <= label < len(names)]
        if beyond:
            raise HadError(f"{root}: a label is {beyond[0]}, known: 0..{len(names) - 1}")
        cells = [names[label] for label in labels]
        return ArrayImages(together, cells, str(root / files[0]), names)

    def _entry(self, file: Path, key: str) -> Any:
        content = read_pickle(file)
        if not isinstance(content, dict) or key not in content:
            raise HadError(f"{file}: no entry {key!r} in it; it is not an official CIFAR file")
        return content[key]


def read_pickle(file: Path) -> Any:
    """The content of a pickle that may hold plain values and arrays, and run no code.

    Raises:
        HadError: the file is missing, damaged, or asks for anything else.
    """
    try:
        return _Restricted(io.BytesIO(file.read_bytes()), encoding="latin1").load()
    except FileNotFoundError:
        raise HadError(f"{file}: no such file") from None
    except Exception as error:  # damage can look like any instruction
        raise HadError(f"{file}: damaged, or not a CIFAR file ({error})") from error


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def _pixels(file: Path, data: Any) -> np.ndarray:
    """Rows of 3,072 bytes as uint8 (images, 32, 32, 3)."""
    rows = np.asarray(data)
    if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != np.prod(_SHAPE):
        raise HadError(f"{file}: its data are {rows.dtype} {rows.shape}, not rows of 3,072 bytes")
    return rows.reshape(-1, *_SHAPE).transpose(0, 2, 3, 1)
