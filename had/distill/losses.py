"""What the student is asked to match, as a weighted sum of named parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from had.attention.divergence import mean_over_real_rows

_SMALLEST_SIZE = 1e-6  # of a token's mean square: an all-zero state divides nothing by zero


@dataclass(frozen=True)
class Signals:
    """What one forward pass of teacher and student leaves to be compared.

    Attributes:
        logits: the student's, (B, outputs).
        teacher_logits: (B, outputs), or None without a teacher.
        divergences: KL(teacher row || student row) of each layer, scalars.
        hidden: how far the states after each block are apart, see `block_error`, scalars.
        real: bool (B, T), False at padding; None means all tokens are real.
    """

    logits: Tensor
    teacher_logits: Tensor | None = None
    divergences: tuple[Tensor, ...] = ()
    hidden: tuple[Tensor, ...] = ()
    real: Tensor | None = None


def attention_loss(signals: Signals) -> Tensor:
    """Mean over layers of the mean KL between teacher and student attention rows, in nats."""
    return torch.stack(signals.divergences).mean()


def hidden_loss(signals: Signals) -> Tensor:
    """Mean over blocks of the hidden states' squared error, relative to their size."""
    return torch.stack(signals.hidden).mean()


def block_error(student: Tensor, teacher: Tensor, real: Tensor | None = None) -> Tensor:
    """Mean over real tokens of |student - teacher|^2 / |teacher|^2, a float32 scalar.

    From some layer on, many transformers keep a few tokens hundreds of times larger than all others
    (arXiv 2402.17762); of an absolute error these tokens would be nearly everything.

    Args:
        student: hidden states after a block, (B, T, width).
        teacher: likewise.
        real: bool (B, T), False at padding; None means all tokens are real.
    """
    teacher = teacher.float()
    squared = (student.float() - teacher).square().mean(dim=-1)
    size = teacher.square().mean(dim=-1).clamp_min(_SMALLEST_SIZE)
    real = None if real is None else real[:, None, :, None]
    return mean_over_real_rows((squared / size)[:, None], real)
