# mypy: allow-untyped-defs
"""Forward kernel: one program keeps all scores of its query rows on chip.

Shapes: B batch, H query heads, G key heads, T queries, S keys, D head_dim, V value_dim; a teacher
has its own key heads TG and head_dim TD. A program owns BLOCK_T rows of one (batch, head) and all
keys; BLOCK_S is a power of two >= S. CHUNK columns of units, VALUE_CHUNK of values at a time.
"""

from __future__ import annotations

import triton
import triton.language as tl

from had.attention.backends.triton_rows_tiles import (
    LOWEST,
    add_bias,
    apply_mask,
    dot,
    exp,
    head_of,
    keep_ranks,
    keep_scores,
    load_rows,
    load_units,
    scale,
    split_dot,
    store_rows,
)

_RUNTIME = ["T", "S", "mask_strides", "bias_strides", "teacher_bias_strides"]
"""Integers that change from batch to batch: specialising on them would compile again and again."""


@triton.jit
def dot_products(
    query,
    key,
    query_stride,
    key_stride,
    t,
    s,
    T,
    S,
    D: tl.constexpr,
    CHUNK: tl.constexpr,
    SIGNS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Query rows times keys, (t, s) in float32."""
    total = tl.zeros((t.shape[0], s.shape[0]), tl.float32)
    for start in tl.static_range(0, D, CHUNK):
        d = start + tl.arange(0, CHUNK)
        q = load_units(query, query_stride, t, d, T, D, SIGNS)
        k = load_units(key, key_stride, s, d, S, D, SIGNS)
        total = dot(q, tl.trans(k), total, PRECISION)
    return total


@triton.jit
def row_divergence(student, teacher):
    """KL(teacher row || student row), and both rows' log-sum-exps, each (t,).

    Over the keys where neither is -inf. The others weigh exp(LOWEST) = 0, and where there are only
    those, all logits and so all their differences are equal: no NaN and no further mask. Taken
    apart into the mean of teacher - student under the teacher's weights and what normalises both,
    so that the teacher's exponentials are needed once.
    """
    comparable = (student > float("-inf")) & (teacher > float("-inf"))
    student = tl.where(comparable, student, LOWEST)
    teacher = tl.where(comparable, teacher, LOWEST)
    student_peak, teacher_peak = tl.max(student, axis=1), tl.max(teacher, axis=1)
    student -= student_peak[:, None]
    teacher -= teacher_peak[:, None]
    student_log = tl.log(tl.sum(exp(student), axis=1))
    weights = exp(teacher)
    total = tl.sum(weights, axis=1)
    teacher_log = tl.log(total)
    mean = tl.sum(weights * (teacher - student), axis=1) / total
    divergence = mean - (teacher_log - student_log)
    return divergence, student_peak + student_log, teacher_peak + teacher_log


@triton.jit
def scores_from_ranks(ranks, factor, s, BLOCK_S: tl.constexpr):
    """Undo product * BLOCK_S - index, exactly; -inf stays."""
    return factor * ((ranks + s.to(tl.float32)[None, :]) * (1.0 / BLOCK_S))


@triton.jit
def store_bits(bits, first_row, kept, t, T, BLOCK_S: tl.constexpr):
    """Pack a (t, s) map of bools, 32 keys a word: the backward pass reads what forward decided."""
    place = tl.arange(0, BLOCK_S) % 32
    single = kept.to(tl.int32) << place[None, :]
    words = tl.sum(tl.reshape(single, (t.shape[0], BLOCK_S // 32, 32)), axis=2)
    w = tl.arange(0, BLOCK_S // 32)
    target = bits + (first_row + t)[:, None] * (BLOCK_S // 32) + w[None, :]
    tl.store(target, words, mask=(t < T)[:, None] & (w >= 0)[None, :])


@triton.jit(do_not_specialize=_RUNTIME)
def attend_rows(
    query,  # (B, H, T, D) float32
    key,  # (B, G, S, D) float32
    value,  # (B, G, S, V)
    gain,  # (B, H) float32, contiguous
    counts,  # int32: keys to keep for every number of allowed keys
    mask,  # (B, H, T, S) uint8 or None
    bias,  # (B, H, T, S) or None
    teacher_query,  # (B, H, T, TD) or None
    teacher_key,  # (B, TG, S, TD)
    teacher_gain,
    teacher_bias,  # (B, H, T, S) or None
    output,  # (B, H, T, V)
    bits,  # (B, H, T, BLOCK_S // 32) int32, contiguous: the kept keys
    statistics,  # (B, H, T, 3): log-sum-exp over kept keys, of the student's row, of the teacher's
    divergence,  # (B, H, T)
    query_strides,
    key_strides,
    value_strides,
    output_strides,
    teacher_query_strides,
    teacher_key_strides,
    mask_strides,
    bias_strides,
    teacher_bias_strides,
    T,
    S,
    H: tl.constexpr,
    G: tl.constexpr,
    TG: tl.constexpr,
    D: tl.constexpr,
    V: tl.constexpr,
    TD: tl.constexpr,
    MASK_PER_ROW: tl.constexpr,
    SIGNS: tl.constexpr,
    PRECISION: tl.constexpr,
    TERMS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_S: tl.constexpr,
    CHUNK: tl.constexpr,
    VALUE_CHUNK: tl.constexpr,
    RANK_STEPS: tl.constexpr,
):
    """Output, kept keys and row statistics of BLOCK_T query rows."""
    blocks = tl.cdiv(T, BLOCK_T)
    head = tl.program_id(0) // blocks
    b, h = head // H, head % H
    t = (tl.program_id(0) % blocks) * BLOCK_T + tl.arange(0, BLOCK_T)
    s = tl.arange(0, BLOCK_S)
    row, column = t[:, None], s[None, :]
    real = t < T
    inside = real[:, None] & (s < S)[None, :]
    first_row = head.to(tl.int64) * T

    allowed = apply_mask(inside, mask, mask_strides, b, h, row, column, S, MASK_PER_ROW)
    products = dot_products(
        head_of(query, query_strides, b, h),
        head_of(key, key_strides, b, h // (H // G)),
        query_strides[2],
        key_strides[2],
        t,
        s,
        T,
        S,
        D,
        CHUNK,
        SIGNS,
        PRECISION,
    )
    factor = tl.load(gain + head)
    # One map has to live through the whole program. Ranks of signs hold score and index: exact in
    # float32, distinct, and one bisection settles both.
    if SIGNS and bias is None:
        ranks = tl.where(allowed, products * BLOCK_S - s[None, :], float("-inf"))
        scores = scores_from_ranks(ranks, factor, s, BLOCK_S)
    else:
        scores = add_bias(scale(factor, products), bias, bias_strides, b, h, row, column, inside)
        scores = tl.where(allowed, scores, float("-inf"))

    if teacher_query is not None:
        logits = dot_products(
            head_of(teacher_query, teacher_query_strides, b, h),
            head_of(teacher_key, teacher_key_strides, b, h // (H // TG)),
            teacher_query_strides[2],
            teacher_key_strides[2],
            t,
            s,
            T,
            S,
            TD,
            CHUNK,
            False,
            PRECISION,
        )
        logits = scale(teacher_gain, logits)
        logits = add_bias(logits, teacher_bias, teacher_bias_strides, b, h, row, column, inside)
        rows, student_sum, teacher_sum = row_divergence(scores, logits)
        tl.store(divergence + first_row + t, rows, mask=real)
        tl.store(statistics + (first_row + t) * 3 + 1, student_sum, mask=real)
        tl.store(statistics + (first_row + t) * 3 + 2, teacher_sum, mask=real)

    number = tl.sum(tl.where(scores > float("-inf"), 1, 0), axis=1)
    need = tl.load(counts + number).to(tl.float32)
    if SIGNS and bias is None:
        kept = keep_ranks(ranks, need, RANK_STEPS)
        scores = scores_from_ranks(ranks, factor, s, BLOCK_S)
    else:
        kept = keep_scores(scores, need, s, BLOCK_S, RANK_STEPS)
    store_bits(bits, first_row, kept, t, T, BLOCK_S)

    peak = tl.max(tl.where(kept, scores, LOWEST), axis=1)
    weights = tl.where(kept, exp(scores - peak[:, None]), 0.0)
    total = tl.sum(weights, axis=1)
    total = tl.where(need > 0, total, 1.0)
    tl.store(statistics + (first_row + t) * 3, peak + tl.log(total), mask=real)
    weights = weights / total[:, None]

    values = head_of(value, value_strides, b, h // (H // G))
    outputs = head_of(output, output_strides, b, h)
    for start in tl.static_range(0, V, VALUE_CHUNK):
        d = start + tl.arange(0, VALUE_CHUNK)
        v = load_rows(values, value_strides[2], s, d, S, V)
        o = split_dot(weights, v, tl.zeros((BLOCK_T, VALUE_CHUNK), tl.float32), PRECISION, TERMS)
        store_rows(outputs, output_strides[2], t, d, T, V, o)
