# mypy: allow-untyped-defs
"""Backward kernels: tiles are formed again from queries, keys and forward's row statistics.

Shapes as in the forward kernel: B batch, H query heads, G key heads, T queries, S keys, D head_dim,
V value_dim; TG and TD of a teacher. Tiles lie key by query (s, t), so that the key-side sums need
no transposition. `backward_keys` owns BLOCK_S keys of one key head and walks over its rows and
query heads; when those are all keys it writes the query side too, else `backward_queries` runs
first.
No atomics: every sum has one order, and gradients repeat bit for bit.
"""

from __future__ import annotations

import triton
import triton.language as tl

from had.attention.backends.triton_rows_tiles import (
    add_bias,
    dot,
    head_of,
    kept_weights,
    load_rows,
    load_units,
    scale,
    split_dot,
    store_rows,
    teacher_pull,
)

_RUNTIME = ["T", "S", "mask_strides", "bias_strides", "teacher_bias_strides"]
"""Integers that change from batch to batch: specialising on them would compile again and again."""


@triton.jit(do_not_specialize=_RUNTIME)
def backward_queries(
    query,  # (B, H, T, D) float32
    key,  # (B, G, S, D) float32
    value,  # (B, G, S, V)
    gain,  # (B, H) float32, contiguous
    mask,  # (B, H, T, S) uint8 or None
    bias,  # (B, H, T, S) or None
    teacher_query,  # (B, H, T, TD) or None
    teacher_key,  # (B, TG, S, TD)
    teacher_gain,
    teacher_bias,  # (B, H, T, S) or None
    bits,  # (B, H, T, WORDS)
    statistics,  # (B, H, T, 3)
    output_grad,  # (B, H, T, V)
    divergence_grad,  # (B, H, T) or None
    query_grad,  # (B, H, T, D)
    gain_grad,  # (B, H, T): the share of every row
    delta,  # (B, H, T): sum over keys of weight * gradient of the weight, for `backward_keys`
    query_strides,
    key_strides,
    value_strides,
    output_grad_strides,
    query_grad_strides,
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
    WORDS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_TD: tl.constexpr,
):
    """Query-side gradients of BLOCK_T rows, in two walks over the keys: `delta`, then the rest."""
    blocks = tl.cdiv(T, BLOCK_T)
    head = tl.program_id(0) // blocks
    b, h = head // H, head % H
    t = (tl.program_id(0) % blocks) * BLOCK_T + tl.arange(0, BLOCK_T)
    d, v_d = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_V)
    real = t < T
    first_row = head.to(tl.int64) * T
    factor = tl.load(gain + head)
    keys = head_of(key, key_strides, b, h // (H // G))
    values = head_of(value, value_strides, b, h // (H // G))
    q = load_units(head_of(query, query_strides, b, h), query_strides[2], t, d, T, D, SIGNS)
    output_grads = head_of(output_grad, output_grad_strides, b, h)
    do = load_rows(output_grads, output_grad_strides[2], t, v_d, T, V)

    row_delta = tl.zeros((BLOCK_T,), tl.float32)
    total = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
    for walk in tl.static_range(2):
        for start in range(0, S, BLOCK_S):
            s = start + tl.arange(0, BLOCK_S)
            inside = (s < S)[:, None] & real[None, :]
            k = load_units(keys, key_strides[2], s, d, S, D, SIGNS)
            v = load_rows(values, value_strides[2], s, v_d, S, V)
            scores = scale(factor, dot(k, tl.trans(q), None, PRECISION))
            scores = add_bias(scores, bias, bias_strides, b, h, t[None, :], s[:, None], inside)
            if walk == 1:
                pull = teacher_pull(
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
                    MASK_PER_ROW,
                    H // TG,
                    TD,
                    BLOCK_TD,
                    PRECISION,
                )
            weights = kept_weights(scores, bits, statistics, first_row, t, s, T, S, WORDS)
            weights_grad = dot(v, tl.trans(do), None, PRECISION)
            if walk == 0:
                row_delta += tl.sum(weights * weights_grad, axis=0)
            else:
                gradient = pull + weights * (weights_grad - row_delta[None, :])
                total = split_dot(tl.trans(gradient), k, total, PRECISION, TERMS)

    tl.store(delta + first_row + t, row_delta, mask=real)
    tl.store(gain_grad + first_row + t, tl.sum(total * q.to(tl.float32), axis=1), mask=real)
    grads = head_of(query_grad, query_grad_strides, b, h)
    store_rows(grads, query_grad_strides[2], t, d, T, D, factor * total)


@triton.jit(do_not_specialize=_RUNTIME)
def backward_keys(
    query,  # (B, H, T, D) float32
    key,  # (B, G, S, D) float32
    value,  # (B, G, S, V)
    gain,  # (B, H) float32, contiguous
    mask,  # (B, H, T, S) uint8 or None
    bias,  # (B, H, T, S) or None
    teacher_query,  # (B, H, T, TD) or None
    teacher_key,  # (B, TG, S, TD)
    teacher_gain,
    teacher_bias,  # (B, H, T, S) or None
    bits,  # (B, H, T, WORDS)
    statistics,  # (B, H, T, 3)
    output_grad,  # (B, H, T, V)
    divergence_grad,  # (B, H, T) or None
    query_grad,  # (B, H, T, D), written if ALL_KEYS
    gain_grad,  # (B, H, T), written if ALL_KEYS
    delta,  # (B, H, T), read unless ALL_KEYS
    key_grad,  # (B, G, S, D)
    value_grad,  # (B, G, S, V)
    query_strides,
    key_strides,
    value_strides,
    output_grad_strides,
    query_grad_strides,
    key_grad_strides,
    value_grad_strides,
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
    WORDS: tl.constexpr,
    ALL_KEYS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_TD: tl.constexpr,
):
    """Key-side gradients of BLOCK_S keys, summed over all rows of the query heads sharing them."""
    blocks = tl.cdiv(S, BLOCK_S)
    group = tl.program_id(0) // blocks
    b, g = group // G, group % G
    s = (tl.program_id(0) % blocks) * BLOCK_S + tl.arange(0, BLOCK_S)
    d, v_d = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_V)
    k = load_units(head_of(key, key_strides, b, g), key_strides[2], s, d, S, D, SIGNS)
    v = load_rows(head_of(value, value_strides, b, g), value_strides[2], s, v_d, S, V)
    key_total = tl.zeros((BLOCK_S, BLOCK_D), tl.float32)
    value_total = tl.zeros((BLOCK_S, BLOCK_V), tl.float32)

    for member in range(H // G):
        h = g * (H // G) + member
        first_row = (b * H + h).to(tl.int64) * T
        factor = tl.load(gain + b * H + h)
        queries = head_of(query, query_strides, b, h)
        output_grads = head_of(output_grad, output_grad_strides, b, h)
        for start in range(0, T, BLOCK_T):
            t = start + tl.arange(0, BLOCK_T)
            real = t < T
            inside = (s < S)[:, None] & real[None, :]
            q = load_units(queries, query_strides[2], t, d, T, D, SIGNS)
            do = load_rows(output_grads, output_grad_strides[2], t, v_d, T, V)
            scores = scale(factor, dot(k, tl.trans(q), None, PRECISION))
            scores = add_bias(scores, bias, bias_strides, b, h, t[None, :], s[:, None], inside)
            pull = teacher_pull(
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
                MASK_PER_ROW,
                H // TG,
                TD,
                BLOCK_TD,
                PRECISION,
            )
            weights = kept_weights(scores, bits, statistics, first_row, t, s, T, S, WORDS)
            weights_grad = dot(v, tl.trans(do), None, PRECISION)
            if ALL_KEYS:
                row_delta = tl.sum(weights * weights_grad, axis=0)
            else:
                row_delta = tl.load(delta + first_row + t, mask=real, other=0.0)
            gradient = pull + weights * (weights_grad - row_delta[None, :])
            value_total = split_dot(weights, do, value_total, PRECISION, TERMS)
            key_total = split_dot(factor * gradient, q, key_total, PRECISION, TERMS)
            if ALL_KEYS:
                total = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
                total = split_dot(tl.trans(gradient), k, total, PRECISION, TERMS)
                share = tl.sum(total * q.to(tl.float32), axis=1)
                tl.store(gain_grad + first_row + t, share, mask=real)
                grads = head_of(query_grad, query_grad_strides, b, h)
                # Offsets are summed first, in 32 bits: registers are short in this loop.
                grads += t[:, None] * query_grad_strides[2] + d[None, :]
                tl.store(grads, factor * total, mask=real[:, None] & (d < D)[None, :])

    grads = head_of(key_grad, key_grad_strides, b, g)
    store_rows(grads, key_grad_strides[2], s, d, S, D, key_total)
    grads = head_of(value_grad, value_grad_strides, b, g)
    store_rows(grads, value_grad_strides[2], s, v_d, S, V, value_total)
