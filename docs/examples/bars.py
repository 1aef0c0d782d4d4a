"""A task of one's own: bars in noise. Its settings are its YAML file, key for key."""

from dataclasses import dataclass, field
from typing import Any

import torch

from had.tasks.base import EncodedDataset, TaskData
from had.tasks.objectives import Classification, Objective
from had.tasks.supervised import SupervisedTask


@dataclass(kw_only=True, eq=False)
class BarsTask(SupervisedTask):
    """Tells horizontal from vertical bars in 8 x 8 images.

    Attributes:
        examples: images made, a fifth of them for evaluation.
        noise: standard deviation of what is added to every pixel.
    """

    examples: int
    noise: float
    _data: TaskData | None = field(default=None, init=False, repr=False)

    def problems(self) -> list[str]:
        few = [f"task.examples={self.examples}: must be 10 or more"] if self.examples < 10 else []
        return super().problems() + few

    def _load(self) -> Objective:
        random = torch.Generator().manual_seed(0)
        labels = torch.randint(2, (self.examples,), generator=random)
        images = self.noise * torch.randn(self.examples, 1, 8, 8, generator=random)
        places = torch.randint(8, (self.examples,), generator=random)
        for image, label, place in zip(images, labels, places, strict=True):
            image.movedim(1 + int(label), 1)[:, place] += 1.0
        held_out = self.examples // 5
        self._data = TaskData(
            EncodedDataset({"pixel_values": images[held_out:]}, labels[held_out:]),
            {"": EncodedDataset({"pixel_values": images[:held_out]}, labels[:held_out])},
        )
        return Classification.declared({"0": "horizontal", "1": "vertical"})

    def encode(self, preprocessor: Any = None) -> TaskData:
        self.read()
        assert self._data is not None
        return self._data
