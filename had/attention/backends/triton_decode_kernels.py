# mypy: allow-untyped-defs
"""Kernels of `triton_decode`: scores of packed keys as bytes, and weighted sums of selected values.

Shapes: B batch, H query heads, G key heads, T queries, S keys, V value width, W words of a key.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import libdevice

from had.attention.backends.base import PackedCall
from had.attention.select import topn_indices
from had.attention.topn import keys_to_keep, keys_to_keep_of_part

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
_SCORED = 1024  # keys of a program
_GATHERED = 64  # values that a program adds up at a time
_SPLITS = 16  # programs that divide a row's values


def attend(call: PackedCall) -> Tensor:
    """The attention output (B, H, T, V) in value's dtype."""
    output, _, _ = _attend(call, int(keys_to_keep(call.n, torch.tensor(call.key.shape[2]))))
    return output.to(call.value.dtype)


def attend_part(call: PackedCall, elsewhere: int) -> tuple[Tensor, Tensor]:
    """`had.attention.backends.base.Backend.attend_part` of a call without a mask."""
    keep = int(keys_to_keep_of_part(call.n, torch.tensor(call.key.shape[2]), elsewhere))
    rows, width = call.query.shape[:3], call.value.shape[-1]
    if not keep:
        output = call.value.new_zeros((*rows, width), dtype=torch.float32)
        return output, torch.full_like(output[..., :1], -torch.inf)
    output, total, top = _attend(call, keep)
    equal_bits = (top - 1).view(*rows, 1)
    return output, call.gain * (2.0 * equal_bits - call.head_dim) + total.view(*rows, 1).log()


def _attend(call: PackedCall, keep: int) -> tuple[Tensor, Tensor, Tensor]:
    """The output, float32, and of every row the sum of weights and the best score, (B H T)."""
    keys = call.key.shape[2]
    scores = match_scores(call)
    index = topn_indices(scores.view(-1, keys), keep)
    top = scores.view(-1, keys).gather(1, index).amax(1)
    partial, totals = _gather(call, scores, index, top)
    total = totals.sum(1)
    # A row without any allowed key has no weight, and its output is zero.
    output = partial.sum(1) / total.where(total > 0, 1.0)
    return output.view(*call.query.shape[:3], call.value.shape[-1]), total.squeeze(1), top


def match_scores(call: PackedCall) -> Tensor:
    """Equal bits plus one, 0 for forbidden keys: uint8 (B, H, T, S)."""
    query = call.query.contiguous()
    batch, heads, tokens, words = query.shape
    groups, keys = call.key.shape[1:3]
    scores = torch.empty((batch, heads, tokens, keys), dtype=torch.uint8, device=query.device)
    mask = None if call.mask is None else call.mask.expand(scores.shape).view(torch.uint8)
    with torch.cuda.device_of(query):
        _match_scores[(batch * groups, triton.cdiv(keys, _SCORED))](
            *(query, call.key, mask, scores),
            *(call.key.stride(), (0, 0, 0, 0) if mask is None else mask.stride()),
            *(call.head_dim, keys, tokens),
            **{"G": groups, "SHARED": heads // groups, "W": words, "BLOCK": _SCORED},
        )
    return scores


def _gather(call: PackedCall, scores: Tensor, index: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted sums of values (B H T, splits, V), and of weights (B H T, splits, 1), float32."""
    heads, tokens, keys = scores.shape[1:]
    value, keep = call.value, index.shape[1]
    rows, width = index.shape[0], value.shape[-1]
    splits = min(_SPLITS, triton.cdiv(keep, _GATHERED))
    partial = torch.empty((rows, splits, width), device=scores.device)
    totals = torch.empty((rows, splits, 1), device=scores.device)
    with torch.cuda.device_of(scores):
        _add_values[(rows, splits)](
            *(scores, index, top, value, _gain_of_rows(call), partial, totals, value.stride()),
            *(keys, keep, tokens),
            **{"H": heads, "SHARED": heads // value.shape[1], "V": width},
            BLOCK_V=triton.next_power_of_2(width),
            BLOCK=_GATHERED,
        )
    return partial, totals


def _gain_of_rows(call: PackedCall) -> Tensor:
    """The factor of the dot product for every row, float32 (B H T), contiguous."""
    batch, heads, tokens, _ = call.query.shape
    if not isinstance(call.gain, Tensor):
        return torch.full((batch * heads * tokens,), call.gain, device=call.query.device)
    return call.gain.float().expand(batch, heads, tokens, 1).reshape(-1).contiguous()


@triton.jit
def _popcount(x):
    """Bits set in int32 x."""
    if INTERPRETED:
        x = x.to(tl.uint32, bitcast=True)
        x = x - ((x >> 1) & 0x55555555)
        x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
        x = (x + (x >> 4)) & 0x0F0F0F0F
        count = ((x + (x >> 8) + (x >> 16) + (x >> 24)) & 0xFF).to(tl.int32)
    else:
        count = libdevice.popc(x)
    return count


@triton.jit
def _match_scores(
    query,
    key,
    mask,
    scores,
    key_strides,
    mask_strides,
    head_dim,
    S,
    T,
    G: tl.constexpr,
    SHARED: tl.constexpr,
    W: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Scores of BLOCK keys of one key head for all query rows that share it."""
    b = (tl.program_id(0) // G).to(tl.int64)
    g = tl.program_id(0) % G
    s = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = s < S
    keys = key + b * key_strides[0] + g * key_strides[1] + s.to(tl.int64) * key_strides[2]
    for shared in range(SHARED):
        h = g * SHARED + shared
        for t in range(T):
            row = (b * (G * SHARED) + h) * T + t
            distance = tl.zeros((BLOCK,), tl.int32)
            for w in tl.static_range(W):
                # Keys are read once: the other rows find them in the cache.
                words = tl.load(keys + w, mask=inside, other=0)
                distance += _popcount(words ^ tl.load(query + row * W + w))
            score = head_dim - distance + 1
            if mask is not None:
                place = mask + b * mask_strides[0] + h * mask_strides[1] + t * mask_strides[2]
                allowed = tl.load(place + s * mask_strides[3], mask=inside, other=0)
                score = tl.where(allowed != 0, score, 0)
            tl.store(scores + row * S + s, score.to(tl.uint8), mask=inside)


@triton.jit
def _add_values(
    scores,
    index,
    top,
    value,
    gain,
    partial,
    totals,
    value_strides,
    S,
    N,
    T,
    H: tl.constexpr,
    SHARED: tl.constexpr,
    V: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One split of one row's selected keys: the sum of weighted values, and of weights."""
    row = tl.program_id(0).to(tl.int64)
    split, splits = tl.program_id(1), tl.num_programs(1)
    h = (row // T) % H
    values = value + row // T // H * value_strides[0] + h // SHARED * value_strides[1]
    v = tl.arange(0, BLOCK_V)
    length = tl.cdiv(N, splits * BLOCK) * BLOCK
    start = split * length
    per_match = 2 * tl.load(gain + row)
    highest = tl.load(top + row).to(tl.int32)
    output = tl.zeros((BLOCK_V,), tl.float32)
    total = 0.0
    for first in range(start, tl.minimum(start + length, N), BLOCK):
        i = first + tl.arange(0, BLOCK)
        s = tl.load(index + row * N + i, mask=i < N, other=0)
        score = tl.load(scores + row * S + s, mask=i < N, other=0).to(tl.int32)
        weight = tl.where(score > 0, tl.exp((score - highest).to(tl.float32) * per_match), 0.0)
        inside = (score > 0)[:, None] & (v < V)[None, :]
        rows = tl.load(values + s[:, None] * value_strides[2] + v[None, :], mask=inside, other=0.0)
        output += tl.sum(rows.to(tl.float32) * weight[:, None], axis=0)
        total += tl.sum(weight, axis=0)
    place = row * splits + split
    tl.store(partial + place * V + v, output, mask=v < V)
    tl.store(totals + place, total)
