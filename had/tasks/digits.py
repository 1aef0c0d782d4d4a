"""scikit-learn's handwritten digits: real data that needs no download."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from had.errors import HadError
from had.tasks.base import Batch, EncodedDataset, TaskData
from had.tasks.mixing import MixingPlan, cut_images
from had.tasks.objectives import Classification, Objective
from had.tasks.splits import fraction_problems, stratified_split
from had.tasks.supervised import SupervisedTask

_HALF_RANGE = 8.0  # pixels are counts 0..16


@dataclass(kw_only=True, eq=False)
class DigitsTask(SupervisedTask):
    """Ten classes of 8 x 8 grey images, 1,797 in all.

    Attributes:
        eval_fraction: share of every digit held out for evaluation.
        split_seed: of that split alone; the run's seed does not move it.
    """

    takes_preprocessor: ClassVar[bool] = False

    eval_fraction: float
    split_seed: int
    _images: Tensor | None = field(default=None, init=False, repr=False)
    _labels: Tensor | None = field(default=None, init=False, repr=False)

    def problems(self) -> list[str]:
        problems = super().problems() + fraction_problems("eval_fraction", self.eval_fraction)
        if self.objective != "classification":
            problems.append(f"task.objective={self.objective}: digits are classified")
        return problems

    def _load(self) -> Objective:
        try:
            from sklearn.datasets import load_digits  # a second to import, and only here
        except ModuleNotFoundError as error:
            raise HadError("task=digits needs scikit-learn: pip install scikit-learn") from error
        digits = load_digits()
        pixels = torch.from_numpy(digits.images).to(torch.float32)
        self._images = (pixels / _HALF_RANGE - 1.0).unsqueeze(1)
        self._labels = torch.from_numpy(digits.target).long()
        return Classification.declared({str(digit): str(digit) for digit in range(10)})

    def encode(self, preprocessor: Any = None) -> TaskData:
        """The two parts; pixel_values are float32 (batch, 1, 8, 8) in -1..1.

        Args:
            preprocessor: not used: the images are as small as they get.
        """
        self.read()
        assert self._labels is not None
        train, evaluation = stratified_split(self._labels, self.eval_fraction, self.split_seed)
        return TaskData(self._part(train), {"": self._part(evaluation)})

    def mix(self, batch: Batch, plan: MixingPlan) -> Batch:
        pixels = batch["inputs"]["pixel_values"]
        images, labels = cut_images(pixels, batch["labels"], plan, self.num_outputs)
        return {"inputs": {"pixel_values": images}, "labels": labels}

    def _part(self, indices: Tensor) -> EncodedDataset:
        assert self._images is not None
        assert self._labels is not None
        return EncodedDataset({"pixel_values": self._images[indices]}, self._labels[indices])
