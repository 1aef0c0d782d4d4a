"""Decoding with exact recent keys: the many keys far back by a backend that reads bits alone.

A row's softmax over all of its kept keys is that over the exact ones and over one key more, which
stands for the far ones: its score is the log of the sum of their exponentials, and its value their
average. So no backend needs to know of exact keys, only how many a row keeps without its help.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from had.attention import functional
from had.attention.backends.base import Backend, ExactKeys, PackedBackend, PackedCall


class MergingBackend(PackedBackend):
    """Takes calls of one query token a sequence whose last keys are exact.

    Args:
        far: computes attention to all other keys (`Backend.attend_part`); its name is ours.
    """

    takes_exact_keys = True

    def __init__(self, far: Backend) -> None:
        self.far = far
        self.name = far.name  # type: ignore[misc]

    def supports_packed(self, call: PackedCall) -> bool:
        return (
            call.exact is not None
            and call.query.shape[2] == 1
            and 0 < _near(call, call.exact) < call.key.shape[2]
            and call.bias is None
            and (call.mask is None or _ends_with_exact_keys(call, call.exact, call.mask))
            and self.far.supports_part(_far_of(call))
        )

    def attend_packed(self, call: PackedCall) -> Tensor:
        assert call.exact is not None
        near = _near(call, call.exact)
        allowed = None if call.mask is None else call.mask[..., -near:]
        kept = near if allowed is None else allowed.sum(-1)
        output, log_sums = self.far.attend_part(_far_of(call), kept)
        scores = _exact_scores(call.exact, near, allowed)
        merged = _merge(scores, call.value[:, :, -near:], output, log_sums)
        return merged if call.value.element_size() == 1 else merged.to(call.value.dtype)


def _near(call: PackedCall, exact: ExactKeys) -> int:
    """How many last keys are exact to every row, as far as it may see them."""
    return min(exact.recent, exact.key.shape[2], call.key.shape[2])


def _ends_with_exact_keys(call: PackedCall, exact: ExactKeys, mask: Tensor) -> bool:
    """Whether all heads share a row of the mask, in which the exact keys are the last ones.

    If more keys than these are given in full precision, then a row whose last keys are forbidden
    scores earlier ones exactly; which, nobody knows without reading the mask.
    """
    no_more = exact.key.shape[2] <= exact.recent
    return no_more and mask.dim() == 4 and mask.shape[1:] == (1, 1, call.key.shape[2])


def _far_of(call: PackedCall) -> PackedCall:
    """The call for all keys but the exact ones; views, no copies."""
    assert call.exact is not None
    far = call.key.shape[2] - _near(call, call.exact)
    mask = None if call.mask is None else call.mask[..., :far]
    key, value = call.key[:, :, :far], call.value[:, :, :far]
    return replace(call, key=key, value=value, mask=mask, exact=None)


def _exact_scores(exact: ExactKeys, near: int, allowed: Tensor | None) -> Tensor:
    """Scores of the last keys, (B, G, H / G, near), -inf where forbidden.

    Args:
        exact: queries (B, H, 1, D) and keys; the heads that share a key head are its rows.
        near: how many last keys.
        allowed: bool (B or 1, 1, 1, near), None for all.
    """
    batch, groups, _, width = exact.key.shape
    rows = exact.query.reshape(batch, groups, -1, width)
    scores = functional.attention_scores(rows, exact.key[:, :, -near:], gain=exact.gain, bias=None)
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
