"""Random changes of training images, a whole batch at a time, on the device where it lies.

Crops and flips are drawn for every image. Transforms of torchvision draw once for all images they
are given, so a batch is divided into groups: every image still sees each change as often as it
should, and the number of kernels does not grow with the batch.

Every random number is drawn on the CPU from the seed of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2


@dataclass(frozen=True)
class Augmentation:
    """Which random changes training images undergo.

    Attributes:
        scale: smallest and largest share of an image's area that a crop keeps; [1, 1]: no crop.
        ratio: narrowest and widest aspect ratio of a crop.
        flip: probability of a mirror image.
        randaugment: operations of RandAugment (arXiv 1909.13719) an image; 0: none.
        magnitude: their strength, 0 to 30.
        erase: probability that a rectangle is erased (arXiv 1708.04896).
        mixup: alpha of mixup (arXiv 1710.09412); 0: none.
        cutmix: alpha of CutMix (arXiv 1905.04899); 0: none. With both, each batch has one of them.
        groups: parts of a batch that draw their own RandAugment operations and erased rectangles.
    """

    scale: Sequence[float] = (1.0, 1.0)
    ratio: Sequence[float] = (1.0, 1.0)
    flip: float = 0.0
    randaugment: int = 0
    magnitude: int = 9
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    groups: int = 16

    def problems(self) -> Iterator[str]:
        """One sentence for each impossible setting."""
        for name, most in (("scale", 1.0), ("ratio", math.inf)):
            low_high = list(getattr(self, name))
            if len(low_high) != 2 or not 0 < low_high[0] <= low_high[1] <= most:
                limit = " and at most 1" if most == 1.0 else ""
                yield f"{name}={low_high}: must be [smallest, largest], above 0{limit}"
        for name in ("flip", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                yield f"{name}={getattr(self, name)}: must be a probability, 0 to 1"
        for name in ("mixup", "cutmix", "randaugment"):
            if getattr(self, name) < 0:
                yield f"{name}={getattr(self, name)}: must not be negative; 0 turns it off"
        if not 0 <= self.magnitude <= 30:
            yield f"magnitude={self.magnitude}: must be 0 to 30"
        if self.groups < 1:
            yield f"groups={self.groups}: must be 1 or more"

    @property
    def mixes(self) -> bool:
        """Whether an image becomes a mixture of two."""
        return self.mixup > 0 or self.cutmix > 0

    @cached_property
    def _randaugment(self) -> v2.Transform:
        return v2.RandAugment(self.randaugment, self.magnitude)

    @cached_property
    def _erasing(self) -> v2.Transform:
        return v2.RandomErasing(self.erase)

    def crops(self, images: Tensor, side: int, mode: str) -> Tensor:
        """A random crop of every image, mirrored or not, scaled to a square.

        Args:
            images: float (B, C, H, W).
            side: of the result.
            mode: "bicubic" or "bilinear".

        Returns:
            (B, C, side, side).
        """
        boxes = self._boxes(len(images))
        if images.is_cuda:
            boxes = boxes.pin_memory()
        boxes = boxes.to(images.device, non_blocking=True)
        grid = F.affine_grid(boxes, [*images.shape[:2], side, side], align_corners=False)
        return F.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)

    def _boxes(self, count: int) -> Tensor:
        """(count, 2, 3): where in its image, from -1 to 1, the crop's corners lie."""
        area = torch.empty(count).uniform_(*self.scale)
        low, high = (math.log(value) for value in self.ratio)
        ratio = torch.empty(count).uniform_(low, high).exp()
        width, height = ((area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1))
        x, y = ((2 * torch.rand(count) - 1) * (1 - edge) for edge in (width, height))
        mirror = torch.where(torch.rand(count) < self.flip, -1.0, 1.0)
        boxes = torch.zeros(count, 2, 3)
        boxes[:, 0, 0], boxes[:, 0, 2] = width * mirror, x
        boxes[:, 1, 1], boxes[:, 1, 2] = height, y
        return boxes

    def recolour(self, images: Tensor) -> Tensor:
        """RandAugment on images (B, 3, H, W) in 0 .. 1."""
        return self._by_group(self._randaugment, images) if self.randaugment else images

    def erased(self, images: Tensor) -> Tensor:
        """Rectangles of normalised images (B, C, H, W) set to 0, the mean colour."""
        return self._by_group(self._erasing, images) if self.erase else images

    def mixed(self, images: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """Images mixed with one another, and their labels with them.

        Returns:
            The images, and labels (B, classes) that sum to 1; both unchanged if nothing is mixed.
        """
        kinds = {v2.MixUp: self.mixup, v2.CutMix: self.cutmix}
        used = [kind(alpha=alpha, num_classes=classes) for kind, alpha in kinds.items() if alpha]
        if not used:
            return images, labels
        return used[int(torch.randint(len(used), ()))](images, labels)

    def _by_group(self, change: v2.Transform, images: Tensor) -> Tensor:
        return torch.cat([change(group) for group in images.chunk(self.groups)])


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Random numbers of the CPU come from `seed`; the stream outside is not disturbed."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)
