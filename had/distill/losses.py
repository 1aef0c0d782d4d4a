"""What the student is asked to match, as a weighted sum of named parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from had.attention.divergence import mean_over_real_rows

_SMALLEST_SIZE = 1e-6  # of a token's mean square: an all-zero state divides nothing by zero


@dataclass(frozen=True)
class BlockStates:
    """What a block leaves of one batch in either model.

    Attributes:
        student: (B, T, width).
        teacher: likewise.
        real: bool (B, T), False at padding; None means all tokens are real.
    """

    student: Tensor
    teacher: Tensor
    real: Tensor | None = None


@dataclass(frozen=True)
class Signals:
    """What one forward pass of teacher and student leaves to be compared.

    Attributes:
        logits: the student's, (B, outputs).
        teacher_logits: (B, outputs), or None without a teacher.
        divergences: KL(teacher row || student row) of each layer, scalars.
        hidden: the states after each block.
        real: bool (B, T), False at padding; None means all tokens are real.
    """

    logits: Tensor
    teacher_logits: Tensor | None = None
    divergences: tuple[Tensor, ...] = ()
    hidden: tuple[BlockStates, ...] = ()
    real: Tensor | None = None


def attention_loss(signals: Signals) -> Tensor:
    """Mean over layers of the mean KL between teacher and student attention rows, in nats."""
    return torch.stack(signals.divergences).mean()


def hidden_loss(signals: Signals) -> Tensor:
    """Mean over layers and real tokens of the hidden states' squared error, relative to their size.

    From some layer on, many transformers keep a few tokens hundreds of times larger than all others
    (arXiv 2402.17762); of an absolute error these tokens would be nearly everything.
    """
    return torch.stack([_relative_error(states) for states in signals.hidden]).mean()


def _relative_error(states: BlockStates) -> Tensor:
    """Mean over real tokens of |student - teacher|^2 / |teacher|^2."""
    teacher = states.teacher.float()
    squared = (states.student.float() - teacher).square().mean(dim=-1)
    size = teacher.square().mean(dim=-1).clamp_min(_SMALLEST_SIZE)
    real = None if states.real is None else states.real[:, None, :, None]
    return mean_over_real_rows((squared / size)[:, None], real)
