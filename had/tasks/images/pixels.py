"""From stored bytes to what a model sees: batches are scaled, changed and normalised on the device.

Images travel as uint8 squares, an eighth of what normalised ones at model size would take for small
images, and the loader only slices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from had.tasks.base import Batch, OnDevice
from had.tasks.images.augment import Augmentation, drawing_from
from had.tasks.images.store import PIXELS

_SMOOTH = ("bicubic", "bilinear")  # filters that the device has; others become the first
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: how PIL makes RGB grey


class Preprocessing(Protocol):
    """What a model says of the images it was trained on."""

    size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop: float


@dataclass(frozen=True)
class ImageBatches(OnDevice):
    """Turns uint8 squares (B, 3, S, S) into model input (B, C, side, side).

    Attributes:
        side: of the model's input.
        channels: of the model's input: 3, or 1 for grey.
        mean: of each colour, in 0 .. 1.
        std: likewise.
        interpolation: the model's resampling filter.
        crop: share of an image's side that evaluation looks at.
        classes: of the labels, for mixed ones.
        augmentation: of training images.
    """

    side: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop: float
    classes: int
    augmentation: Augmentation

    @torch.no_grad()
    def __call__(self, batch: Batch, draw: int | None = None) -> Batch:
        images, labels = batch["inputs"][PIXELS].float(), batch["labels"]
        with torch.autocast(images.device.type, enabled=False):
            if draw is None:
                images = self._normalised(self._centre(images) / 255)
            else:
                with drawing_from(draw):
                    images, labels = self._augmented(images, labels)
        return {"inputs": {**batch["inputs"], PIXELS: images}, "labels": labels}

    @property
    def _mode(self) -> str:
        return self.interpolation if self.interpolation in _SMOOTH else _SMOOTH[0]

    def _centre(self, images: Tensor) -> Tensor:
        """The centre crop of evaluation, by the filter and the rounding of PIL."""
        whole = stored_side(self.side, self.crop)
        if images.shape[-1] != whole:
            images = F.interpolate(images, (whole, whole), mode=self._mode, antialias=True)
            images = images.clamp(0, 255).round()
        first = round((whole - self.side) / 2)
        return images[..., first : first + self.side, first : first + self.side]

    def _augmented(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        change = self.augmentation
        images = change.crops(images, self.side, self._mode).clamp(0, 255) / 255
        images = change.erased(self._normalised(change.recolour(images)))
        return change.mixed(images, labels, self.classes)

    def _normalised(self, images: Tensor) -> Tensor:
        mean, std, luma = (_by_colour(v, images.device) for v in (self.mean, self.std, _LUMA))
        if self.channels == 1:
            images = (images * luma).sum(1, keepdim=True)
            mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
        return (images - mean) / std


@lru_cache
def _by_colour(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(colours, 1, 1), made once: to copy it in every step, the host would wait for the device."""
    return torch.tensor(values, device=device)[:, None, None]


def stored_side(side: int, crop: float) -> int:
    """The side of the square whose centre crop is the model's input, rounded as timm does."""
    return math.floor(side / crop)
