"""Where images come from: ordered collections of labelled images, read one by one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from had.errors import HadError

SUFFIXES = (*(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"),)


class Images(ABC):
    """Labelled images in a fixed order.

    Attributes:
        labels: the class of each image, as its source writes it.
        source: the folder, archive or data set, for messages.
        classes: all classes in the order of their numbers, where the source has one; else None.
    """

    def __init__(
        self, labels: Sequence[str], source: str, classes: Sequence[str] | None = None
    ) -> None:
        self.labels = list(labels)
        self.source = source
        self.classes = classes

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def open(self, row: int) -> Path | IO[bytes] | Image.Image:
        """What `had.tasks.images.decode.decode` takes."""

    @abstractmethod
    def where(self, row: int) -> str:
        """What an image is called in messages."""

    @abstractmethod
    def stamp(self, row: int) -> str:
        """Changes when the image does: its name, size and time, or its content."""

    def pick(self, rows: Iterable[int]) -> Images:
        """Some of the images, in the given order."""
        return Picked(self, list(rows))


class Picked(Images):
    """Some of another collection's images."""

    def __init__(self, images: Images, rows: list[int]) -> None:
        super().__init__([images.labels[row] for row in rows], images.source, images.classes)
        self._images, self._rows = images, rows

    def open(self, row: int) -> Path | IO[bytes] | Image.Image:
        return self._images.open(self._rows[row])

    def where(self, row: int) -> str:
        return self._images.where(self._rows[row])

    def stamp(self, row: int) -> str:
        return self._images.stamp(self._rows[row])


class FileImages(Images):
    """One file an image."""

    def __init__(self, files: Sequence[Path], labels: Sequence[str], source: str) -> None:
        super().__init__(labels, source)
        self.files = list(files)

    def open(self, row: int) -> Path:
        return self.files[row]

    def where(self, row: int) -> str:
        return str(self.files[row])

    def stamp(self, row: int) -> str:
        about = self.files[row].stat()
        return f"{self.files[row]} {about.st_size} {about.st_mtime_ns}"


class ArrayImages(Images):
    """Images that lie in memory as pixels: uint8 (images, height, width, 3)."""

    def __init__(
        self, pixels: np.ndarray, labels: Sequence[str], source: str, classes: Sequence[str]
    ) -> None:
        super().__init__(labels, source, classes)
        self.pixels = pixels

    def open(self, row: int) -> Image.Image:
        return Image.fromarray(self.pixels[row])

    def where(self, row: int) -> str:
        return f"{self.source}:{row}"

    def stamp(self, row: int) -> str:
        return self.pixels[row].tobytes().hex()


def image_files(folder: Path) -> list[Path]:
    """The image files below a folder, at any depth, in the order of their names."""
    found = (file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    return sorted(file for file in found if not file.name.startswith(".") and file.is_file())


def subfolders(folder: Path) -> list[Path]:
    """The visible folders in a folder, in the order of their names."""
    return sorted(
        each for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")
    )


def class_folders(folder: Path) -> FileImages:
    """Images that lie in one folder a class, `<folder>/<class>/**/<image>`.

    Raises:
        HadError: there are no folders, or a folder without images.
    """
    files, labels, empty = [], [], []
    for each in subfolders(folder):
        found = image_files(each)
        files += found
        labels += [each.name] * len(found)
        if not found:
            empty.append(each.name)
    if not files:
        raise HadError(
            f"{folder}: no images in it; expected <class>/<image> with one folder a class and "
            f"files ending in {', '.join(SUFFIXES)}"
        )
    if empty:
        raise HadError(
            f"{folder}: no images of class {', '.join(empty)}; fill or remove its folder"
        )
    return FileImages(files, labels, str(folder))
