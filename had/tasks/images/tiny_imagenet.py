"""Tiny-ImageNet-200 from its official files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from had.errors import HadError
from had.tasks.images.folder import existing_folder
from had.tasks.images.sources import FileImages, Images, class_folders
from had.tasks.images.task import ImageTask

_ANNOTATIONS = "val_annotations.txt"


@dataclass(kw_only=True, eq=False)
class TinyImageNetTask(ImageTask):
    """200 classes of ImageNet at 64 x 64 pixels.

    Attributes:
        path: holds train/<class>/images/* and val/images/* with val/val_annotations.txt.
    """

    path: str

    def _find(self) -> tuple[Images, Mapping[str, Images]]:
        root = existing_folder(self.path)
        for folder in (root / "train", root / "val"):
            if not folder.is_dir():
                raise HadError(
                    f"task.path={self.path}: no folder {folder.name} in it; give the unpacked "
                    "tiny-imagenet-200"
                )
        return class_folders(root / "train"), {"": annotated(root / "val")}


def annotated(folder: Path) -> FileImages:
    """The validation images, whose classes stand in a file of tab-separated columns.

    Raises:
        HadError: the file is missing or malformed, or an image that it names is.
    """
    file = folder / _ANNOTATIONS
    if not file.is_file():
        raise HadError(f"{file}: no such file; it names the class of every validation image")
    files, labels = [], []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        name, _, rest = line.partition("\t")
        label = rest.partition("\t")[0]
        if not label:
            raise HadError(f"{file}:{number}: expected <image><tab><class>, found {line!r}")
        if not (folder / "images" / name).is_file():
            raise HadError(f"{file}:{number}: {name} is not in {folder / 'images'}")
        files.append(folder / "images" / name)
        labels.append(label)
    if not files:
        raise HadError(f"{file}: it is empty")
    return FileImages(files, labels, str(folder))
