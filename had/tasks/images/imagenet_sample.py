"""One image of every ImageNet class: too few to train on, enough to compare two models."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from had.errors import HadError
from had.tasks.base import EncodedDataset
from had.tasks.images.folder import existing_folder
from had.tasks.images.sources import FileImages, Images, image_files
from had.tasks.images.store import Decoding
from had.tasks.images.task import ImageTask
from had.tasks.objectives import Classification

log = logging.getLogger(__name__)

_CAVEAT = (
    "%s: one image a class, and nobody knows that they are not training images of the model: "
    "accuracies are coarse and may read high, agreement with the teacher says more"
)
_ON_ITSELF = "distilling on the evaluation images themselves; task.images names a folder of others"


@dataclass(kw_only=True, eq=False)
class ImageNetSampleTask(ImageTask):
    """Evaluation on one image a class, distillation without labels on whatever is at hand.

    Attributes:
        path: a folder of image files; the order of their names is that of the classes.
        images: a folder of any images to distil on, at any depth; null: the evaluation images.
        images_stored: side of the square kept of each of those; null: as the evaluation images.
    """

    path: str
    images: str | None
    images_stored: int | None

    def _find(self) -> tuple[Images, Mapping[str, Images]]:
        files = image_files(existing_folder(self.path))
        if len(files) < 2:
            raise HadError(f"task.path={self.path}: expected one image a class, found {len(files)}")
        log.info(_CAVEAT, self.path)
        sample = FileImages(files, [str(row) for row in range(len(files))], self.path)
        return self._unlabelled() or sample, {"": sample}

    def _unlabelled(self) -> Images | None:
        if self.images is None:
            log.info(_ON_ITSELF)
            return None
        folder = Path(self.images).expanduser()
        files = image_files(folder) if folder.is_dir() else []
        if not files:
            raise HadError(f"task.images={self.images}: no such folder, or no images in it")
        return FileImages(files, [""] * len(files), self.images)

    def _classes(self, train: Images) -> Classification:
        return Classification.learned(self._evaluation[""])

    def _train_labels(self, images: Images) -> Tensor:
        """Zeros: nothing may learn from them."""
        return torch.zeros(len(images), dtype=torch.long)

    def _decoded(self, images: Images, labels: Tensor, how: Decoding) -> EncodedDataset:
        if images is self._train and self.images_stored:
            how = replace(how, side=self.images_stored)
        return super()._decoded(images, labels, how)
