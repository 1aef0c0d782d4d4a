"""What Hamming decoding on GPUs is measured against: dense attention, and a HATA-style pipeline.

Dense: PyTorch's flash, cuDNN and FlexAttention in the forms that serve them best, and a split-KV
flash decoding of our own in Triton. HATA-style (arXiv 2506.02572, re-implemented): scalar popcounts
summed over the query heads of a group, a generic top-k, and attention over the gathered keys and
values in full precision, one selection for the group.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from triton.language.extra import libdevice

PROGRAMS = 128  # about one for every multiprocessor
_FLEX_BLOCK = 128  # keys


def sdpa(backend: SDPBackend, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """PyTorch's attention; heads that share keys unfolded, which cuDNN needs to be fast."""
    with sdpa_kernel(backend):
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)


class FlexDecoding:
    """FlexAttention, compiled for one shape, with a query token over `keys` keys.

    It shares out blocks of the mask among splits. The mask that it makes where none is given is a
    single block, and all keys go to one split: hence a mask that allows all, in blocks.
    """

    def __init__(self, keys: int, device: torch.device | str) -> None:
        blocks = triton.cdiv(keys, _FLEX_BLOCK)
        all_blocks = torch.full((1, 1, 1), blocks, dtype=torch.int32, device=device)
        index = torch.arange(blocks, dtype=torch.int32, device=device)[None, None, None]
        self.mask = BlockMask.from_kv_blocks(
            *(torch.zeros_like(all_blocks), index, all_blocks, index),
            BLOCK_SIZE=_FLEX_BLOCK,
            seq_lengths=(1, keys),
        )
        torch.compiler.reset()
        self._attend = torch.compile(flex_attention, dynamic=False)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        with torch.no_grad():
            return self._attend(query, key, value, block_mask=self.mask, enable_gqa=True)


def split_kv(query: Tensor, key: Tensor, value: Tensor, index: Tensor | None = None) -> Tensor:
    """Flash decoding: (B, H, 1, D) over (B, G, S, D), or over the rows in index (B, G, N)."""
    batch, heads, _, width = query.shape
    groups, length = key.shape[1:3]
    count = length if index is None else index.shape[2]
    splits = max(1, min(triton.cdiv(PROGRAMS, batch * groups), triton.cdiv(count, 64)))
    partial = query.new_empty((batch * heads, splits, width), dtype=torch.float32)
    sums = query.new_empty((batch * heads, splits, 2), dtype=torch.float32)
    output = torch.empty_like(query)
    _attend_split[(batch * groups, splits)](
        *(query, key, value, index, partial, sums),
        *(width**-0.5 * 1.4426950408889634, length, count, splits),
        **{"GROUP": heads // groups, "D": width, "BLOCK": 64, "ROWS": 16},
        num_warps=4,
        num_stages=3,
    )
    _combine_splits[(batch * heads,)](
        partial, sums, output, splits, D=width, BLOCK=triton.next_power_of_2(splits)
    )
    return output


def hata_style(query_bits: Tensor, key_bits: Tensor, *dense: Tensor, n: int) -> Tensor:
    """Score by popcounts, select with torch.topk, attend to the selected keys in full precision."""
    batch, heads, _, words = query_bits.shape
    groups, length = key_bits.shape[1:3]
    score = torch.empty((batch, groups, length), dtype=torch.float16, device=query_bits.device)
    grid = (batch * groups, triton.cdiv(length, 1024))
    _popcount_scores[grid](
        query_bits, key_bits, score, length, GROUP=heads // groups, WORDS=words, BLOCK=1024
    )
    return split_kv(*dense, score.topk(n, dim=-1, sorted=False).indices)


@triton.jit
def _attend_split(
    query,
    key,
    value,
    index,
    partial,
    sums,
    scale,
    S,
    count,
    splits,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    """One split of the keys of one key head, for the GROUP query heads that share it."""
    head, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    r, d, block = tl.arange(0, ROWS), tl.arange(0, D), tl.arange(0, BLOCK)
    own = (r < GROUP)[:, None]
    q = tl.load(query + (head * GROUP + r)[:, None] * D + d[None, :], mask=own, other=0.0)
    length = tl.cdiv(count, splits * BLOCK) * BLOCK
    start = split * length
    end = tl.minimum(start + length, count)
    peak = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    output = tl.zeros((ROWS, D), tl.float32)
    for first in range(start, end, BLOCK):
        s = first + block
        inside = s < end
        if index is not None:
            row = tl.load(index + head * count + s, mask=inside, other=0)
        else:
            row = s.to(tl.int64)
        row += head * S
        k = tl.load(key + row[:, None] * D + d[None, :], mask=inside[:, None], other=0.0)
        v = tl.load(value + row[:, None] * D + d[None, :], mask=inside[:, None], other=0.0)
        logits = tl.where(inside[None, :], tl.dot(q, tl.trans(k)) * scale, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(logits, axis=1))
        weights = tl.exp2(logits - new_peak[:, None])
        rescale = tl.exp2(peak - new_peak)
        total = total * rescale + tl.sum(weights, axis=1)
        output = output * rescale[:, None] + tl.dot(weights.to(v.dtype), v)
        peak = new_peak
    place = (head * GROUP + r) * splits + split
    tl.store(partial + place[:, None] * D + d[None, :], output, mask=own)
    tl.store(sums + place * 2, peak, mask=r < GROUP)
    tl.store(sums + place * 2 + 1, total, mask=r < GROUP)


@triton.jit
def _combine_splits(partial, sums, output, splits, D: tl.constexpr, BLOCK: tl.constexpr):
    """The splits of one query head, weighted by their shares of the softmax."""
    head = tl.program_id(0).to(tl.int64)
    d, split = tl.arange(0, D), tl.arange(0, BLOCK)
    inside = split < splits
    place = head * splits + split
    peak = tl.load(sums + place * 2, mask=inside, other=float("-inf"))
    total = tl.load(sums + place * 2 + 1, mask=inside, other=0.0)
    weight = tl.exp2(peak - tl.max(peak, axis=0))
    parts = tl.load(partial + place[:, None] * D + d[None, :], mask=inside[:, None], other=0.0)
    whole = tl.sum(parts * weight[:, None], axis=0) / tl.sum(total * weight, axis=0)
    tl.store(output + head * D + d, whole.to(output.dtype.element_ty))


@triton.jit
def _popcount_scores(
    query, key, score, S, GROUP: tl.constexpr, WORDS: tl.constexpr, BLOCK: tl.constexpr
):
    """Minus the Hamming distances of BLOCK keys, summed over the query heads of the group."""
    head = tl.program_id(0).to(tl.int64)
    s = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    w = tl.arange(0, WORDS)
    keys = key + (head * S + s)[:, None] * WORDS + w[None, :]
    words = tl.load(keys, mask=(s < S)[:, None], other=0)
    distance = tl.zeros((BLOCK,), tl.int32)
    for g in tl.static_range(GROUP):
        bits = tl.load(query + (head * GROUP + g) * WORDS + w)
        distance += tl.sum(libdevice.popc(words ^ bits[None, :]), axis=1)
    tl.store(score + head * S + s, (-distance).to(tl.float16), mask=s < S)
