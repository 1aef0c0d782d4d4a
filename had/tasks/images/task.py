"""What all tasks on images share: settings, classes, decoding, and the transforms."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from had.errors import HadError
from had.tasks.base import Batch, EncodedDataset, TaskData
from had.tasks.images.augment import Augmentation
from had.tasks.images.pixels import ImageBatches, Preprocessing, stored_side
from had.tasks.images.sources import Images
from had.tasks.images.store import DECODERS, PIXELS, Decoding
from had.tasks.mixing import MixingPlan, cut_images
from had.tasks.objectives import Classification
from had.tasks.supervised import SupervisedTask

_SHOWN = 5  # classes named in a message
_MOST_WORKERS = 16


@dataclass(kw_only=True, eq=False)
class ImageTask(SupervisedTask):
    """Classification of images.

    Attributes:
        cache: where decoded images are kept.
        decode: "once" into the cache, for sets that fit on disk, or "each_time".
        workers: processes that decode where it is done each time; null: one a core, 16 at most.
        strict: refuse a set with unreadable images instead of leaving them out.
        stored: side of the square that is kept of each image; null: what the model looks at.
        crop: share of an image's side that evaluation looks at; null: the model's own.
        labels: whether there are labels to train on; without, a teacher must be given.
        augment: random changes of training images.
    """

    cache: str
    decode: str
    workers: int | None
    strict: bool
    stored: int | None
    crop: float | None
    labels: bool
    augment: Augmentation
    _train: Images | None = field(default=None, init=False, repr=False)
    _evaluation: Mapping[str, Images] = field(default_factory=dict, init=False, repr=False)

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.objective != "classification":
            problems.append(f"task.objective={self.objective}: images are classified")
        if self.decode not in DECODERS:
            problems.append(f"task.decode={self.decode}: must be {' or '.join(DECODERS)}")
        if self.workers is not None and self.workers < 0:
            problems.append(f"task.workers={self.workers}: must be 0 or more, or null")
        if self.stored is not None and self.stored < 1:
            problems.append(f"task.stored={self.stored}: must be 1 or more pixels, or null")
        if self.crop is not None and not 0 < self.crop <= 1:
            problems.append(f"task.crop={self.crop}: must be a share above 0, at most 1, or null")
        return problems + [f"task.augment.{line}" for line in self.augment.problems()]

    @abstractmethod
    def _find(self) -> tuple[Images, Mapping[str, Images]]:
        """Finds the training and the evaluation images, without decoding any."""

    def _load(self) -> Classification:
        self._train, self._evaluation = self._find()
        objective = self._classes(self._train)
        for images in self._evaluation.values():
            check_classes(images, set(objective.label_names), self._train.source)
        return objective

    def _classes(self, train: Images) -> Classification:
        """The classes of the task: as their source numbers them, or those there are, sorted."""
        if len(set(train.labels)) == 1:
            raise HadError(
                f"{train.source}: all images are of one class, {train.labels[0]!r}; "
                "classification needs two classes or more"
            )
        if train.classes is not None:
            return Classification({name: name for name in train.classes})
        return Classification.learned(train)

    def encode(self, preprocessor: Preprocessing) -> TaskData:
        """All images as uint8 squares, to be finished on the device by `ImageBatches`.

        Args:
            preprocessor: what the model says of its input.

        Raises:
            HadError: the model does not look at squares in colour or grey, or images cannot be
                read.
        """
        self.read()
        assert self._train is not None
        batches = self.batches(preprocessor, self.num_outputs)
        how = Decoding(
            self.stored or stored_side(batches.side, batches.crop),
            preprocessor.interpolation,
            Path(self.cache).expanduser(),
            self.strict,
            min(_MOST_WORKERS, os.cpu_count() or 1) if self.workers is None else self.workers,
        )
        evaluation = {
            name: self._decoded(images, self._labels(images), how)
            for name, images in self._evaluation.items()
        }
        train = self._decoded(self._train, self._train_labels(self._train), how)
        return TaskData(train, evaluation, batches)

    def batches(self, preprocessor: Preprocessing, classes: int) -> ImageBatches:
        """What makes a model's input of decoded squares.

        Args:
            preprocessor: what the model says of its input.
            classes: of the labels.

        Raises:
            HadError: the model does not look at squares in colour or grey.
        """
        channels, height, width = preprocessor.size
        if height != width or channels not in (1, 3):
            raise HadError(
                f"the model takes images of {channels} x {height} x {width} (channels, height, "
                "width); image tasks give squares of 3 channels, or 1"
            )
        return ImageBatches(
            side=height,
            channels=channels,
            mean=preprocessor.mean,
            std=preprocessor.std,
            interpolation=preprocessor.interpolation,
            crop=self.crop or preprocessor.crop,
            classes=classes,
            augmentation=self.augment,
        )

    def mix(self, batch: Batch, plan: MixingPlan) -> Batch:
        """Cuts images, unless augmentation mixes them: of four there would be little to see."""
        images, labels = batch["inputs"][PIXELS], batch["labels"]
        if not self.augment.mixes:
            images, labels = cut_images(images, labels, plan, self.num_outputs)
        inputs = {PIXELS: images}
        return {"inputs": inputs, "labels": labels} if self.labels else {"inputs": inputs}

    def _labels(self, images: Images) -> Tensor:
        return self._known_objective().encode(images)

    def _train_labels(self, images: Images) -> Tensor:
        return self._labels(images)

    def _decoded(self, images: Images, labels: Tensor, how: Decoding) -> EncodedDataset:
        return DECODERS[self.decode](images, labels, how)


def check_classes(images: Images, known: set[str], source: str) -> None:
    """Refuse evaluation images of a class that training never sees.

    Raises:
        HadError: naming the classes.
    """
    unknown = sorted(set(images.labels) - known)
    if unknown:
        named = ", ".join(unknown[:_SHOWN]) + (", ..." if len(unknown) > _SHOWN else "")
        example = images.where(images.labels.index(unknown[0]))
        raise HadError(
            f"{images.source}: {len(unknown)} of its classes are not in {source}: {named} "
            f"(as {example}); add training images, or remove them"
        )
