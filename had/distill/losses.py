"""What the student is asked to match, as a weighted sum of named parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from had.attention.divergence import mean_over_real_rows


@dataclass(frozen=True)
class Signals:
    """What one forward pass of teacher and student leaves to be compared.

    Attributes:
        logits: the student's, (B, outputs).
        teacher_logits: (B, outputs), or None without a teacher.
        divergences: KL(teacher row || student row) of each layer, scalars.
        hidden: pairs (student, teacher) of hidden states of each layer, (B, T, width).
        real: bool (B, T), False at padding; None means all tokens are real.
    """

    logits: Tensor
    teacher_logits: Tensor | None = None
    divergences: tuple[Tensor, ...] = ()
    hidden: tuple[tuple[Tensor, Tensor], ...] = ()
    real: Tensor | None = None


def attention_loss(signals: Signals) -> Tensor:
    """Mean over layers of the mean KL between teacher and student attention rows, in nats."""
    return torch.stack(signals.divergences).mean()


def hidden_loss(signals: Signals) -> Tensor:
    """Mean over layers of the mean squared error between hidden states of real tokens."""
    return torch.stack([_masked_mse(s, t, signals.real) for s, t in signals.hidden]).mean()


def _masked_mse(student: Tensor, teacher: Tensor, real: Tensor | None) -> Tensor:
    """Mean over real tokens and width of the squared difference of (B, T, width) states."""
    squared = (student.float() - teacher.float()).square().mean(dim=-1)
    return mean_over_real_rows(squared[:, None], None if real is None else real[:, None, :, None])
