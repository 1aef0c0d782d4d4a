"""A user's own images, in one folder a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from had.errors import HadError
from had.tasks.images.sources import Images, class_folders, image_files, subfolders
from had.tasks.images.task import ImageTask
from had.tasks.splits import fraction_problems, stratified_split

TRAIN = ("train", "training")
EVALUATION = ("val", "valid", "validation", "test")


@dataclass(kw_only=True, eq=False)
class ImageFolderTask(ImageTask):
    """Images in folders named after their classes.

    Attributes:
        path: holds `train` and `val` (or `valid`, `validation`, `test`) with the classes in each,
            or the classes themselves.
        eval_fraction: share of every class held out where there is no folder for evaluation.
        split_seed: of that split alone; the run's seed does not move it.
    """

    path: str
    eval_fraction: float
    split_seed: int

    def problems(self) -> list[str]:
        return super().problems() + fraction_problems("eval_fraction", self.eval_fraction)

    def _find(self) -> tuple[Images, Mapping[str, Images]]:
        root = existing_folder(self.path)
        train, evaluation = _first(root, TRAIN), _first(root, EVALUATION)
        if train is None:
            return self._split(class_folders(checked(root)))
        if evaluation is None:
            return self._split(class_folders(train))
        return class_folders(train), {"": class_folders(evaluation)}

    def _split(self, images: Images) -> tuple[Images, Mapping[str, Images]]:
        _, strata = np.unique(images.labels, return_inverse=True)
        parts = stratified_split(torch.from_numpy(strata), self.eval_fraction, self.split_seed)
        train, evaluation = (images.pick(rows.tolist()) for rows in parts)
        return train, {"": evaluation}


def existing_folder(path: str) -> Path:
    """The folder that task.path names.

    Raises:
        HadError: there is none.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise HadError(f"task.path={path}: no such folder")
    return folder


def checked(root: Path) -> Path:
    """The folder, if its images lie in folders of their classes.

    Raises:
        HadError: they lie in it directly.
    """
    loose = image_files(root)
    if loose and not subfolders(root):
        raise HadError(
            f"task.path={root}: its {len(loose)} images lie side by side; put them into one folder "
            "a class: <class>/<image>, or train/<class>/<image> and val/<class>/<image>"
        )
    return root


def _first(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)
