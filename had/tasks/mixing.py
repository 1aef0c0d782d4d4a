"""New examples from those of a batch, for a teacher to answer.

The idea is CutMix's (arXiv 1905.04899) carried over to token sequences: an example keeps its
beginning and takes the rest, padding included, from another one. What a mixture of texts says
nobody knows; of a mixture of images each part's label counts by its share of the area.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class MixingPlan:
    """Who is mixed with whom, drawn from a seed and a step alone, so that runs can be resumed.

    Attributes:
        chosen: bool (B,), the examples that are changed.
        partner: int64 (B,), the example that gives the other part.
        place: (B,) in [0, 1), where the parts meet.
    """

    chosen: Tensor
    partner: Tensor
    place: Tensor

    @classmethod
    def draw(cls, batch: int, share: float, seed: int, step: int) -> Self:
        """A plan for `batch` examples in which `share` of them are expected to change."""
        generator = torch.Generator().manual_seed(hash((seed, step)) % 2**63)
        return cls(
            chosen=torch.rand(batch, generator=generator) < share,
            partner=torch.randperm(batch, generator=generator),
            place=torch.rand(batch, generator=generator),
        )

    def to(self, device: torch.device) -> Self:
        """The same plan where the batch is."""
        moved = (x.to(device, non_blocking=True) for x in (self.chosen, self.partner, self.place))
        return type(self)(*moved)


def splice(inputs: Mapping[str, Tensor], plan: MixingPlan, side: str) -> dict[str, Tensor]:
    """Token sequences whose end, from some real token on, is that of their partner.

    Args:
        inputs: (B, T) tensors, `attention_mask` among them, 0 at padding.
        plan: of B examples, on their device.
        side: of the padding; on the left the beginning is replaced instead, so that the parts stay
            where they are.

    Returns:
        The inputs, with the columns beyond the seam taken from the partner. The seam lies inside of
        both sequences: each example keeps its first token and takes its partner's last.
    """
    lengths = inputs["attention_mask"].long().sum(dim=1)
    inner = (torch.minimum(lengths, lengths[plan.partner]) - 2).clamp_min(0)
    seam = 1 + (plan.place * (inner + 1)).long()
    columns = torch.arange(inputs["attention_mask"].shape[1], device=seam.device)
    from_edge = {"right": columns, "left": columns.flip(0)}[side]
    taken = (from_edge >= seam[:, None]) & plan.chosen[:, None]
    return {name: torch.where(taken, x[plan.partner], x) for name, x in inputs.items()}


def cut_images(
    images: Tensor, labels: Tensor, plan: MixingPlan, classes: int
) -> tuple[Tensor, Tensor]:
    """Images whose lower part, from some row on, is that of their partner.

    Args:
        images: (B, C, H, W).
        labels: int64 (B,), or (B, classes) that sum to 1.
        plan: of B examples, on their device.
        classes: of the labels.

    Returns:
        The images, and labels (B, classes): of both parts, each by its share of the area.
    """
    height = images.shape[-2]
    seam = torch.where(plan.chosen, (plan.place * height).long(), height)
    taken = torch.arange(height, device=seam.device) >= seam[:, None]
    mixed = torch.where(taken[:, None, :, None], images[plan.partner], images)
    soft = F.one_hot(labels, classes).float() if labels.dim() == 1 else labels
    return mixed, torch.lerp(soft[plan.partner], soft, (seam / height)[:, None])
