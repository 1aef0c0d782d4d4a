"""How far the student's attention rows are from the teacher's, computed from queries and keys.

No attention map leaves this file: the teacher gives its queries and keys (O(T D)), the rows of both
are formed, compared and dropped one layer at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from had.attention.functional import attention_scores
from had.attention.topn import allowed_keys


@dataclass(frozen=True)
class AttentionTarget:
    """What a teacher layer leaves behind for its student.

    Attributes:
        query: (B, H, T, D), full precision, detached.
        key: (B, G, S, D), likewise.
        gain: scale of the dot product.
        bias: additive position bias broadcastable to (B, H, T, S), or None.
        stride: every stride-th query row is compared, from row stride - 1 on: rows far apart say
            more of a long text than all of them, for what they cost.
    """

    query: Tensor
    key: Tensor
    gain: float
    bias: Tensor | None = None
    stride: int = 1

    def scores(self) -> Tensor:
        """The teacher's logits, (B, H, T, S), at least float32."""
        return attention_scores(self.query, self.key, gain=self.gain, bias=self.bias)


def masked_log_softmax(scores: Tensor, allowed: Tensor) -> Tensor:
    """log softmax over the allowed keys; forbidden keys get a large negative number, never NaN."""
    lowest = torch.finfo(scores.dtype).min / 4
    return scores.masked_fill(~allowed, lowest).log_softmax(dim=-1)


def row_divergence(student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
    """KL(teacher row || student row) over all allowed keys, before any top-N.

    The paper names the divergence but not the rows it is taken over; full rows are our choice: they
    keep a gradient on keys that the selection leaves out.

    Args:
        student: logits (B, H, T, S), floating.
        teacher: logits (B, H, T, S), no gradient flows to them.
        mask: bool, broadcastable to the logits, True = allowed.

    Returns:
        (B, H, T), nats; 0 for a row without allowed keys.
    """
    allowed = allowed_keys(teacher, mask)
    log_teacher = masked_log_softmax(teacher.detach(), allowed)
    log_student = masked_log_softmax(student, allowed)
    contribution = log_teacher.exp() * (log_teacher - log_student)
    return contribution.masked_fill(~allowed, 0.0).sum(dim=-1)


def mean_over_real_rows(rows: Tensor, real: Tensor | None) -> Tensor:
    """Mean of (B, H, T) over heads and the rows of real queries.

    Args:
        rows: a value for every row.
        real: bool broadcastable to (B, 1, T, 1), False at padded queries; None means all are real.
    """
    if real is None:
        return rows.mean()
    weight = real.squeeze(-1).to(rows.dtype).expand_as(rows)
    return (rows * weight).sum() / weight.sum().clamp_min(1)
