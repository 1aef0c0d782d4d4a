"""Hamming attention as the paper's equations, in code: the oracle of every other implementation.

For one head, with b(x) = +1 where x >= 0 and -1 elsewhere::

    m_ts = number of equal bits of b(q_t) and b(k_s)                      0 .. head_dim
    s_ts = scale * sigma_q * sigma_k * (2 m_ts - head_dim) + bias_ts
    K_t  = the N allowed keys of row t with the largest s_ts, lowest index first among equals
    o_t  = sum over K_t of softmax(s_t restricted to K_t) * v_s

The selection K_t is in `had.attention.topn`. Everything here is a pure function of tensors on any
device, differentiable, and accumulates in float32 at least. The method is Hamming Attention
Distillation (arXiv 2502.01770).

Shapes: B batch, H query heads, G key/value heads (H is a multiple of G: grouped-query attention),
T queries, S keys, D head_dim, V value_dim.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from had.attention.topn import (
    Selection,
    TopN,
    allowed_keys,
    kept_keys,
    recent_keys,
    topn_mask,
)

Weighting = Callable[[Tensor, Tensor], Tensor]

_NO_OVERFLOW = 1e-12  # smallest sigma divided by: a constant projection has sigma 0


def binarize(x: Tensor) -> Tensor:
    """b(x): +1 where x >= 0, else -1, in x's dtype; zero is positive, so one bit suffices."""
    # -0.0 + 0.0 is 0.0, whose sign bit is that of a positive number.
    return torch.copysign(x.new_ones(()), x + 0.0)


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """The value of `hard`, exactly, with the gradient of `soft` (straight-through estimator)."""
    return hard.detach() + (soft - soft.detach())


def match_counts(query: Tensor, key: Tensor) -> Tensor:
    """m_ts: how many of the D bits of query t and key s agree; D minus their Hamming distance.

    Args:
        query: (..., T, D), binarized here.
        key: (..., S, D), binarized here.

    Returns:
        int32 (..., T, S), values 0 .. D.
    """
    dot = binarize(query.float()) @ binarize(key.float()).transpose(-2, -1)
    return ((dot + query.shape[-1]) / 2).to(torch.int32)


def expand_groups(x: Tensor, heads: int) -> Tensor:
    """Repeat key/value heads (..., G, S, D) for the query heads that share them: (..., H, S, D).

    Args:
        x: of the key/value heads.
        heads: H, a multiple of G.

    Raises:
        ValueError: `heads` is not a multiple of G.
    """
    groups = x.shape[-3]
    if heads % groups:
        raise ValueError(f"{heads} query heads cannot share {groups} key/value heads evenly")
    return x if heads == groups else x.repeat_interleave(heads // groups, dim=-3)


def per_query_head(sigma: Tensor | float, heads: int) -> Tensor | float:
    """A sigma of each key head (..., G, 1, 1) for the query heads that share it; one number stays.

    Raises:
        ValueError: `heads` is not a multiple of G.
    """
    if not isinstance(sigma, Tensor) or sigma.dim() < 3:
        return sigma
    return expand_groups(sigma, heads)


def attention_scores(
    query: Tensor, key: Tensor, *, gain: Tensor | float, bias: Tensor | None
) -> Tensor:
    """gain * (query . key) + bias, accumulated in float32 (float64 stays float64).

    With query and key in {-1, +1} the dot products are exact integers, so equal Hamming distances
    give equal scores and ties are real ties.

    Args:
        query: (B, H, T, D).
        key: (B, G, S, D).
        gain: scalar or broadcastable to (B, H, 1, 1); positive.
        bias: additive, broadcastable to (B, H, T, S), or None.

    Returns:
        (B, H, T, S).
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast(query.device.type, enabled=False):
        key = expand_groups(key, query.shape[1])
        scores = gain * (query.to(dtype) @ key.to(dtype).transpose(-2, -1))
    return scores if bias is None else scores + bias


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension restricted to mask; rows without any key are all zeros."""
    scores = scores.masked_fill(~mask, -math.inf)
    peak = scores.amax(dim=-1, keepdim=True).clamp_min(torch.finfo(scores.dtype).min)
    weights = torch.exp(scores - peak.detach())
    total = weights.sum(dim=-1, keepdim=True)
    return weights / total.clamp_min(torch.finfo(scores.dtype).tiny)


def with_exact_scores(
    scores: Tensor,
    query: Tensor,
    key: Tensor,
    recent: int,
    *,
    gain: float,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Scores in which those of every row's last keys are exact, gain * q k; and which these are.

    Args:
        scores: of the binarized queries and keys, (B, H, T, S).
        query, key: (B, H, T, D) and (B, G, S, D), full precision.
        recent: the last so many keys that a row may see.
        gain, mask, bias: of the exact scores, as those of `attention_scores` and `topn_mask`.
    """
    always = recent_keys(allowed_keys(scores, mask), recent)
    exact = attention_scores(query, key, gain=gain, bias=bias)
    return torch.where(always, exact, scores), always


def attend_to_scores(
    scores: Tensor,
    value: Tensor,
    n: TopN,
    mask: Tensor | None = None,
    selection: Selection = topn_mask,
    weighting: Weighting = masked_softmax,
    always: Tensor | None = None,
) -> Tensor:
    """Softmax over the N best allowed keys of every row, times their values.

    Args:
        scores: (B, H, T, S).
        value: (B, G, S, V).
        n: keys a row keeps; see `keys_to_keep`.
        mask: bool, broadcastable to scores, True = allowed.
        selection: finds the keys to keep; any function equal to `topn_mask`.
        weighting: maps scores and selection to the weights of the values.
        always: bool, shape of scores: allowed keys that are kept in any case, and count among N.

    Returns:
        (B, H, T, V) in value's dtype.
    """
    weights = weighting(scores, kept_keys(scores, n, mask, selection, always))
    with torch.autocast(value.device.type, enabled=False):
        output = weights @ expand_groups(value, scores.shape[1]).to(weights.dtype)
    return output.to(value.dtype)


def hamming_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    n: TopN,
    sigma_query: Tensor | float,
    sigma_key: Tensor | float,
    scale: float | None = None,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    recent: int = 0,
) -> Tensor:
    """Hamming attention (arXiv 2502.01770): one-bit queries and keys, softmax over the top N keys.

    Gradients reach query and key through the straight-through estimator (d sigma b(x) / dx = 1),
    value, bias and the sigmas exactly.

    Args:
        query: (B, H, T, D), after any rotary embedding or normalisation.
        key: (B, G, S, D), H a multiple of G.
        value: (B, G, S, V).
        n: keys a row keeps: an integer >= 1, a float in (0, 1] as a fraction of the allowed keys,
            or a `ScaledN`, such a fraction with a minimum.
        sigma_query: magnitude of a binarized query, scalar or broadcastable to (B, H, 1, 1).
        sigma_key: magnitude of a binarized key, likewise.
        scale: of the dot product, default D ** -0.5.
        mask: bool, broadcastable to (B, H, T, S), True = allowed. Rows with none give zeros.
        bias: added to the scores before the selection, broadcastable to (B, H, T, S).
        recent: the last so many keys that a row may see are scored in full precision, scale * q k,
            and always kept; they count among the N. Ours, for causal language models.

    Returns:
        (B, H, T, V) in query's dtype, computed in float32 at least.

    Raises:
        ValueError: n is out of range, or H is not a multiple of G.
    """
    heads = query.shape[1]
    key, value = expand_groups(key, heads), expand_groups(value, heads)
    sigma_key = per_query_head(sigma_key, heads)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = attention_scores(
        _sign_units(query, sigma_query),
        _sign_units(key, sigma_key),
        gain=scale * sigma_query * sigma_key,
        bias=bias,
    )
    always = None
    if recent:
        scores, always = with_exact_scores(
            scores, query, key, recent, gain=scale, mask=mask, bias=bias
        )
    return attend_to_scores(scores, value, n, mask, always=always).to(query.dtype)


def _sign_units(x: Tensor, sigma: Tensor | float) -> Tensor:
    """b(x) with the straight-through gradient of x / sigma, sigma held constant."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    floor = torch.as_tensor(sigma, device=x.device, dtype=x.dtype).detach().clamp_min(_NO_OVERFLOW)
    return straight_through(binarize(x), x / floor)
