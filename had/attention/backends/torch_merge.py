"""Two parts of a row's keys put together, in PyTorch's operations: exact ones, and all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from had.attention import functional

if TYPE_CHECKING:
    from had.attention.backends.base import ExactKeys


def merge(exact: ExactKeys, far: Tensor, log_sums: Tensor) -> Tensor:
    """`had.attention.backends.base.Backend.merge`."""
    value = exact.beside.value
    merged = _merge(_exact_scores(exact), value, far, log_sums)
    return merged if value.element_size() == 1 else merged.to(value.dtype)


def _exact_scores(exact: ExactKeys) -> Tensor:
    """Scores of the exact keys, (B, G, H / G, K), -inf where forbidden."""
    (batch, groups, _, width), allowed = exact.key.shape, exact.beside.allowed
    rows = exact.query.reshape(batch, groups, -1, width)
    scores = functional.attention_scores(rows, exact.key, gain=exact.gain, bias=None)
    return scores if allowed is None else scores.masked_fill(~allowed, -torch.inf)


def _merge(scores: Tensor, value: Tensor, output: Tensor, log_sums: Tensor) -> Tensor:
    """The average of some keys' values, and of the output of attention to all others.

    Args:
        scores: of these keys, (B, G, H / G, K).
        value: theirs, (B, G, K, V).
        output: of the others, (B, H, 1, V), float32.
        log_sums: of the exponentials of their scores, (B, H, 1, 1), float32.

    Returns:
        (B, H, 1, V), float32; zero where neither has a key.
    """
    rows = scores.shape[:3]
    # A finite score, so that rows without any key have the output of the others: zero.
    log_sums = log_sums.clamp_min(torch.finfo(log_sums.dtype).min).reshape(*rows, 1)
    weights = torch.cat([scores, log_sums], dim=-1).softmax(-1)
    with torch.autocast(value.device.type, enabled=False):
        merged = weights[..., :-1] @ value.float()
    return merged.addcmul_(weights[..., -1:], output.reshape(*rows, -1)).reshape(output.shape)
