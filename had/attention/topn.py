"""Which keys a row keeps: N, in every way it may be given, and the exact selection of the top N.

The selection here is the specification, by sorting; `had.attention.select` finds the same keys
faster. Shapes: B batch, H query heads, T queries, S keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ScaledN:
    """A number of keys that grows with the context: max(minimum, ceil(share * allowed)).

    Attributes:
        share: of the keys that a row may see, in (0, 1].
        minimum: keys that a row keeps at least, if it may see as many.

    Raises:
        ValueError: one of them is out of range.
    """

    share: float
    minimum: int

    def __post_init__(self) -> None:
        if not (isinstance(self.share, float) and 0.0 < self.share <= 1.0):
            raise ValueError(f"n = {self.share!r}: must be a share in (0, 1] beside a minimum")
        if isinstance(self.minimum, bool) or not isinstance(self.minimum, int) or self.minimum < 1:
            raise ValueError(f"minimum = {self.minimum!r}: must be an integer >= 1")


TopN = int | float | ScaledN
"""Keys a row keeps: a number, a share of the allowed ones, or a share with a minimum."""

Selection = Callable[[Tensor, TopN, Tensor | None], Tensor]


def keys_to_keep(n: TopN, allowed: Tensor) -> Tensor:
    """How many keys a row keeps: N, or ceil(f * allowed) for a fraction f; never more than allowed.

    Every implementation asks here, so that a row keeps as many in training as in decoding.

    Args:
        n: an integer >= 1; a float in (0, 1], a fraction of the allowed keys; or a `ScaledN`.
        allowed: integer number of allowed keys of each row, any shape.

    Raises:
        ValueError: n is none of these.
    """
    if isinstance(n, ScaledN):
        return keys_to_keep(n.share, allowed).clamp_min(n.minimum).minimum(allowed)
    check_topn(n)
    if isinstance(n, int):
        return allowed.clamp(max=n)
    exact = n * allowed.double()
    # 0.07 * 100 is 7.000000000000001 in floating point; its ceiling is meant to be 7.
    return torch.ceil(exact * (1 - 1e-12)).to(allowed.dtype)


def share_and_number(n: TopN) -> tuple[float, int]:
    """N in two parts: a row keeps max(ceil(share * allowed), number), if as many are allowed.

    Raises:
        ValueError: n is out of range.
    """
    if isinstance(n, ScaledN):
        return n.share, n.minimum
    check_topn(n)
    return (0.0, n) if isinstance(n, int) else (n, 0)


def keys_to_keep_of_part(n: TopN, allowed: Tensor, elsewhere: Tensor | int) -> Tensor:
    """How many keys of a part a row keeps, where others are kept in any case and count among its N.

    Args:
        n: as that of `keys_to_keep`, of whole rows.
        allowed: integer number of allowed keys in the part, any shape.
        elsewhere: integer number of keys that are kept outside of it, broadcastable to `allowed`.
    """
    return (keys_to_keep(n, allowed + elsewhere) - elsewhere).clamp_min(0)


def check_topn(n: TopN) -> None:
    """Raise ValueError unless n is an integer >= 1, a float in (0, 1] or a `ScaledN`."""
    whole = isinstance(n, int) and not isinstance(n, bool) and n >= 1
    fraction = isinstance(n, float) and 0.0 < n <= 1.0
    if not (whole or fraction or isinstance(n, ScaledN)):
        raise ValueError(
            f"n = {n!r}: must be an integer >= 1 (keys a row) or a float in (0, 1] (a share)"
        )


def allowed_keys(scores: Tensor, mask: Tensor | None) -> Tensor:
    """bool, shape of scores: the mask allows it and no bias of -inf forbids it."""
    possible = scores > -math.inf
    return possible if mask is None else possible & mask


def topn_mask(scores: Tensor, n: TopN, mask: Tensor | None = None) -> Tensor:
    """K_t as a boolean map: the exact selection of the N best allowed keys of every row.

    Args:
        scores: (B, H, T, S), any floating or integer dtype.
        n: keys a row keeps; see `keys_to_keep`.
        mask: bool, broadcastable to scores, True = allowed.

    Returns:
        bool (B, H, T, S). Equal scores: the lowest key index is kept first. Rows with fewer than N
        allowed keys keep all of them.

    Raises:
        ValueError: n is out of range.
    """
    allowed = allowed_keys(scores, mask)
    count = keys_to_keep(n, allowed.sum(-1))
    by_score = scores.argsort(dim=-1, descending=True, stable=True)
    # A second stable sort moves forbidden keys behind all allowed ones without disturbing either.
    order = by_score.gather(
        -1, (~allowed).gather(-1, by_score).to(torch.uint8).argsort(dim=-1, stable=True)
    )
    kept = torch.arange(scores.shape[-1], device=scores.device) < count[..., None]
    return torch.zeros_like(allowed).scatter(-1, order, kept)


def recent_keys(allowed: Tensor, recent: int) -> Tensor:
    """The last `recent` keys that a row may see: places among all keys, from its last allowed one.

    Args:
        allowed: bool (..., S).
        recent: how many, 0 for none.

    Returns:
        bool (..., S), a part of `allowed`.
    """
    keys = allowed.shape[-1]
    place = torch.arange(keys, device=allowed.device)
    end = torch.where(allowed, place, -1).amax(-1, keepdim=True)
    return allowed & (place > end - recent)


def kept_keys(
    scores: Tensor,
    n: TopN,
    mask: Tensor | None = None,
    selection: Selection = topn_mask,
    always: Tensor | None = None,
) -> Tensor:
    """K_t where some keys are kept in any case; arguments as those of `attend_to_scores`."""
    ranked = scores.detach()
    if always is None:
        return selection(ranked, n, mask)
    return selection(ranked.masked_fill(always, math.inf), n, mask) | always
