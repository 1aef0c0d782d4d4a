# mypy: allow-untyped-defs
"""Device functions of the row kernels: tiles of units, logits, the selection, score gradients.

Shapes: T query rows and S keys of one (batch, head); D, V widths of a query/key and of a value.
`t`, `s`, `d` are index vectors of a tile, whose shape is written (t, s): query by key in the
forward pass, (s, t) in the backward pass.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import libdevice

LOWEST = tl.constexpr(-1e30)
"""Stands for the logit of a forbidden key: finite, so that a row without any key gives no NaN."""


INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
"""Kernels run in Triton's interpreter, which multiplies bfloat16 by its bit patterns."""


@triton.jit
def dot(x, y, total, PRECISION: tl.constexpr):
    """total + x @ y: narrow types exactly, float32 with PRECISION, sums in float32."""
    if INTERPRETED:
        x, y = x.to(tl.float32), y.to(tl.float32)
    return tl.dot(x, y, total, input_precision=PRECISION)


@triton.jit
def head_of(tensor, strides, b, h):
    """Pointer to the first row of (b, h); 64-bit, since a batch may pass 2^31 elements."""
    return tensor + b.to(tl.int64) * strides[0] + h.to(tl.int64) * strides[1]


@triton.jit
def load_rows(rows, stride, row, column, row_limit, column_limit):
    """(row, column) tile of a matrix with contiguous rows; zeros beyond the limits."""
    inside = (row < row_limit)[:, None] & (column < column_limit)[None, :]
    return tl.load(rows + row[:, None] * stride + column[None, :], mask=inside, other=0.0)


@triton.jit
def store_rows(rows, stride, row, column, row_limit, column_limit, tile):
    """Write a (row, column) tile to where `load_rows` reads it, rounded to the matrix's type."""
    inside = (row < row_limit)[:, None] & (column < column_limit)[None, :]
    tile = tile.to(rows.dtype.element_ty)
    tl.store(rows + row[:, None] * stride + column[None, :], tile, mask=inside)


@triton.jit
def load_units(rows, stride, row, column, row_limit, column_limit, SIGNS: tl.constexpr):
    """As `load_rows`; signs become bfloat16, whose dot products are exact integers in float32."""
    tile = load_rows(rows, stride, row, column, row_limit, column_limit)
    return tile.to(tl.bfloat16) if SIGNS else tile


@triton.jit
def split_dot(x, y, total, PRECISION: tl.constexpr, TERMS: tl.constexpr):
    """total + x @ y for float32 x, without rounding x to the narrower type of y.

    Narrow tensor cores do the work: x is taken apart into TERMS summands of y's type, 8 (bfloat16)
    or 11 (float16) bits each.
    """
    if y.dtype == tl.float32:
        total = dot(x, y, total, PRECISION)
    else:
        rest = x
        for _ in tl.static_range(TERMS):
            part = rest.to(y.dtype)
            total = dot(part, y, total, PRECISION)
            rest = rest - part.to(tl.float32)
    return total


@triton.jit
def scale(factor, products):
    """factor * products, rounded before a bias is added.

    Fused with the addition it would be rounded once, where the oracle rounds twice: other ties.
    """
    return products * factor if INTERPRETED else libdevice.mul_rn(products, factor)


@triton.jit
def exp(x):
    """e^x; on a device without the steps that keep results below 2^-126 from becoming zero."""
    return tl.exp(x) if INTERPRETED else libdevice.fast_expf(x)


@triton.jit
def add_bias(logits, bias, strides, b, h, t, s, inside):
    """logits + bias; `t` and `s` have the logits' rank, so either may run along the first axis."""
    if bias is not None:
        tile = head_of(bias, strides, b, h) + t * strides[2] + s * strides[3]
        logits = logits + tl.load(tile, mask=inside, other=0.0).to(tl.float32)
    return logits


@triton.jit
def apply_mask(inside, mask, strides, b, h, t, s, S, PER_ROW: tl.constexpr):
    """The keys that the mask allows among those inside; one that no row differs in is read once."""
    if mask is not None:
        keys = head_of(mask, strides, b, h) + s * strides[3]
        if PER_ROW:
            allowed = tl.load(keys + t * strides[2], mask=inside, other=0)
        else:
            allowed = tl.load(keys, mask=s < S, other=0)
        inside = inside & (allowed != 0)
    return inside


@triton.jit
def ordered_image(x):
    """int32 with the order of float32 x; its own inverse on the bits."""
    bits = x.to(tl.int32, bitcast=True)
    return tl.where(bits >= 0, bits, bits ^ 0x7FFFFFFF)


@triton.jit
def as_score(level):
    """The float32 score an ordered image stands for."""
    bits = tl.where(level >= 0, level, level ^ 0x7FFFFFFF)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def count_from(x, least):
    """How many entries of every row reach `least`, float32 (exact: rows are short)."""
    return tl.sum(tl.where(x >= least[:, None], 1.0, 0.0), axis=1)


@triton.jit
def halfway(low, high):
    """The average of two int32 without overflow, rounded down."""
    return (low & high) + ((low ^ high) >> 1)


@triton.jit
def largest_reached(x, need, low, high, STEPS: tl.constexpr):
    """The largest integer that `need` entries of every row reach, or any that exactly `need` do.

    STEPS halvings always, though rows could stop early: to ask whether all of them have would make
    the warps of a program wait for each other in every step.

    Args:
        x: integers (t, s) as float32, -inf where forbidden.
        need: entries wanted, float32 (t,).
        low: an integer that enough entries reach, int32 (t,).
        high: one that too few reach, fewer than 2^STEPS above, int32 (t,).
    """
    for _ in range(STEPS):
        middle = halfway(low, high)
        enough = count_from(x, middle.to(tl.float32)) >= need
        high = tl.where(enough, high, middle)
        low = tl.where(enough, middle, low)
    return low


@triton.jit
def bisect(x, need, low, high):
    """Images low < high with count(x >= low) >= need > count(x >= high) and nothing in between.

    Rows stop early, with high = low + 1, at an image that exactly `need` entries reach.

    Args:
        x: scores (t, s), -inf where forbidden.
        need: entries wanted, float32 (t,); rows that want none are left alone.
        low: an image that enough entries reach, int32 (t,).
        high: an image that too few reach, int32 (t,).
    """
    low = tl.where(need > 0, low, 0)
    high = tl.where(need > 0, high, 0)
    middle = halfway(low, high)
    while tl.max(tl.where(middle > low, 1, 0), axis=0) > 0:
        count = count_from(x, as_score(middle))
        high = tl.where(count == need, middle + 1, tl.where(count > need, high, middle))
        low = tl.where(count >= need, middle, low)
        middle = halfway(low, high)
    return low, high


@triton.jit
def keep_ranks(ranks, need, STEPS: tl.constexpr):
    """The `need` largest of distinct integers that lie within 2^STEPS, -inf where forbidden."""
    lowest = tl.min(tl.where(ranks > float("-inf"), ranks, float("inf")), axis=1)
    highest = tl.max(ranks, axis=1)
    lowest = tl.where(need > 0, lowest, 0.0).to(tl.int32)
    highest = tl.where(need > 0, highest, 0.0).to(tl.int32)
    least = largest_reached(ranks, need, lowest, highest + 1, STEPS).to(tl.float32)
    return ranks >= tl.where(need > 0, least, float("inf"))[:, None]


@triton.jit
def keep_scores(scores, need, s, BLOCK_S: tl.constexpr, STEPS: tl.constexpr):
    """The `need` largest float scores, -inf where forbidden; among equals the lowest index first.

    A bisection over the ordered images of the scores finds the threshold, at most 32 steps; only
    where it has more ties than room does a second one find the index at which they are cut.
    """
    lowest = ordered_image(tl.min(tl.where(scores > float("-inf"), scores, float("inf")), axis=1))
    highest = ordered_image(tl.max(scores, axis=1))
    low, high = bisect(scores, need, lowest, highest + 1)
    least = tl.where(need > 0, as_score(low), float("inf"))[:, None]
    above = as_score(high)[:, None]
    kept = scores >= least
    room = need - tl.sum(tl.where(scores >= above, 1.0, 0.0), axis=1)
    ties = tl.sum(tl.where(kept, 1.0, 0.0), axis=1) - (need - room)
    if tl.max(tl.where(need > 0, ties - room, 0.0), axis=0) > 0:
        tied = (scores >= least) & ~(scores >= above)
        backwards = tl.where(tied, (-s).to(tl.float32)[None, :], float("-inf"))
        first = tl.zeros_like(low) - BLOCK_S
        cut = largest_reached(backwards, room, first, tl.zeros_like(low) + 1, STEPS)
        kept = kept & (~tied | (backwards >= cut.to(tl.float32)[:, None]))
    return kept


@triton.jit
def kept_weights(scores, bits, statistics, first_row, t, s, T, S, WORDS: tl.constexpr):
    """Softmax over the kept keys, (s, t), from the packed selection and its log-sum-exp."""
    real = t < T
    inside = (s < S)[:, None] & real[None, :]
    words = bits + first_row * WORDS + ((t * WORDS)[None, :] + (s // 32)[:, None])
    kept = (tl.load(words, mask=inside, other=0) >> (s % 32)[:, None]) & 1
    log_sum = tl.load(statistics + (first_row + t) * 3, mask=real, other=0.0)
    return tl.where(kept != 0, exp(scores - log_sum[None, :]), 0.0)


@triton.jit
def divergence_gradient(scores, logits, statistics, first_row, t, real, allowed):
    """d KL(teacher row || student row) / d score = student's weights minus teacher's, (s, t)."""
    rows = statistics + (first_row + t) * 3
    student_sum = tl.load(rows + 1, mask=real, other=0.0)
    teacher_sum = tl.load(rows + 2, mask=real, other=0.0)
    student = exp(scores - student_sum[None, :])
    teacher = exp(logits - teacher_sum[None, :])
    comparable = allowed & (scores > float("-inf")) & (logits > float("-inf"))
    return tl.where(comparable, student - teacher, 0.0)


@triton.jit
def teacher_pull(
    scores,
    divergence_grad,
    teacher_query,
    teacher_key,
    teacher_gain,
    teacher_bias,
    statistics,
    mask,
    teacher_query_strides,
    teacher_key_strides,
    mask_strides,
    teacher_bias_strides,
    first_row,
    b,
    h,
    t,
    s,
    T,
    S,
    MASK_PER_ROW: tl.constexpr,
    TEACHER_SHARED: tl.constexpr,
    TD: tl.constexpr,
    BLOCK_TD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The divergence's share of the gradient of the scores (s, t); zeros without a teacher."""
    if divergence_grad is not None:
        real = t < T
        inside = (s < S)[:, None] & real[None, :]
        row, column = t[None, :], s[:, None]
        d = tl.arange(0, BLOCK_TD)
        queries = head_of(teacher_query, teacher_query_strides, b, h)
        keys = head_of(teacher_key, teacher_key_strides, b, h // TEACHER_SHARED)
        q = load_rows(queries, teacher_query_strides[2], t, d, T, TD)
        k = load_rows(keys, teacher_key_strides[2], s, d, S, TD)
        logits = scale(teacher_gain, dot(k, tl.trans(q), None, PRECISION))
        logits = add_bias(logits, teacher_bias, teacher_bias_strides, b, h, row, column, inside)
        allowed = apply_mask(inside, mask, mask_strides, b, h, row, column, S, MASK_PER_ROW)
        pull = divergence_gradient(scores, logits, statistics, first_row, t, real, allowed)
        pull *= tl.load(divergence_grad + first_row + t, mask=real, other=0.0)[None, :]
    else:
        pull = tl.zeros_like(scores)
    return pull
