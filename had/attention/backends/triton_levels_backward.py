# mypy: allow-untyped-defs
"""Backward kernels of attention on signs: scores are formed again, the selection is looked up.

Forward left the level and the cut of every row, which say of any key whether it was kept. Shapes as
there. No atomics: every sum has one order, and gradients repeat bit for bit.
"""

from __future__ import annotations

import triton
import triton.language as tl

from had.attention.backends.triton_levels_forward import (
    NOWHERE,
    exact_logits,
    first_exact_block,
    kept_keys,
    keys_in_sight,
    keys_of_rows,
    rows_of_program,
    sign_products,
)
from had.attention.backends.triton_rows_tiles import dot, head_of, load_rows, store_rows


@triton.jit
def kept_weights(products, factor, level, cut, log_sum, s):
    """Softmax over the kept keys of a block, (t, s)."""
    logits = factor[:, None] * products - log_sum[:, None]
    return tl.exp(tl.where(kept_keys(products, level, cut, s), logits, NOWHERE))


@triton.jit
def selection_of_rows(level, cut, log_sum, place, real):
    """What forward left: each row's level and cut, and its log-sum-exp over the kept keys."""
    threshold = tl.load(level + place, mask=real, other=-NOWHERE)
    last = tl.load(cut + place, mask=real, other=-1)
    return threshold, last, tl.load(log_sum + place, mask=real, other=0.0)


@triton.jit
def level_query_grads(
    query,
    key,
    exact_query,
    exact_key,
    exact_gain,
    value,
    gain,
    first,
    beyond,
    mask,
    level,
    cut,
    log_sum,
    delta,  # (B, H, T) float32: sum over keys of weight * gradient of the weight
    output_grad,  # (B, H, T, V)
    query_grad,  # (B, H, T, D) float32
    exact_query_grad,  # as exact_query
    gain_grad,  # (B, H, T) float32
    query_strides,
    key_strides,
    exact_query_strides,
    exact_key_strides,
    value_strides,
    gain_strides,
    need_strides,
    output_grad_strides,
    query_grad_strides,
    exact_query_grad_strides,
    mask_strides,
    T,
    S,
    H: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    V: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
    RECENT: tl.constexpr,
):
    """Gradients of the queries and gains of BLOCK_T rows."""
    head, b, h, t = rows_of_program(T, H, BLOCK_T)
    real = t < T
    d, v_d = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_V)
    keys = head_of(key, key_strides, b, h // (H // G))
    values = head_of(value, value_strides, b, h // (H // G))
    q = load_rows(head_of(query, query_strides, b, h), query_strides[2], t, d, T, D)
    output_grads = head_of(output_grad, output_grad_strides, b, h)
    do = load_rows(output_grads, output_grad_strides[2], t, v_d, T, V)
    seen = b * need_strides[0] + h * need_strides[1] + t
    seen_beyond, start, end = keys_of_rows(first, beyond, seen, real, S, BLOCK_S)
    place = head.to(tl.int64) * T + t
    threshold, last, sums = selection_of_rows(level, cut, log_sum, place, real)
    mean = tl.load(delta + place, mask=real, other=0.0)
    gains = gain + b * gain_strides[0] + h * gain_strides[1]
    factor = tl.load(gains + t * gain_strides[2], mask=real, other=0.0)

    total = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
    for begin in range(start, end, BLOCK_S):
        s = begin + tl.arange(0, BLOCK_S)
        k = load_rows(keys, key_strides[2], s, d, S, D)
        products = sign_products(q, k, mask, mask_strides, b, h, t, s, T, S, seen_beyond, RECENT)
        weights = kept_weights(products, factor, threshold, last, sums, s)
        v = load_rows(values, value_strides[2], s, v_d, S, V)
        weights_grad = dot(do, tl.trans(v), None, "ieee") - mean[:, None]
        total = dot((weights * weights_grad).to(k.dtype), k, total, "ieee")

    tl.store(gain_grad + place, tl.sum(total * q.to(tl.float32), axis=1), mask=real)
    grads = head_of(query_grad, query_grad_strides, b, h)
    store_rows(grads, query_grad_strides[2], t, d, T, D, factor[:, None] * total)
    if exact_query is not None:
        exact_keys = head_of(exact_key, exact_key_strides, b, h // (H // G))
        exact_queries = head_of(exact_query, exact_query_strides, b, h)
        exact_q = load_rows(exact_queries, exact_query_strides[2], t, d, T, D)
        exact_total = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
        near = first_exact_block(seen_beyond, start, S, BLOCK_S, RECENT)
        for begin in range(near, end, BLOCK_S):
            s = begin + tl.arange(0, BLOCK_S)
            _signs, exact = keys_in_sight(mask, mask_strides, b, h, t, s, T, S, seen_beyond, RECENT)
            k = load_rows(exact_keys, exact_key_strides[2], s, d, S, D)
            logits = exact_logits(exact_q, k, exact_gain, exact)
            weights = tl.exp(tl.where(exact, logits - sums[:, None], NOWHERE))
            v = load_rows(values, value_strides[2], s, v_d, S, V)
            weights_grad = dot(do, tl.trans(v), None, "ieee") - mean[:, None]
            exact_total = dot((weights * weights_grad).to(k.dtype), k, exact_total, "ieee")
        grads = head_of(exact_query_grad, exact_query_grad_strides, b, h)
        store_rows(grads, exact_query_grad_strides[2], t, d, T, D, exact_gain * exact_total)


@triton.jit
def rows_that_see(
    first,
    beyond,
    s_first,
    T,
    S,
    BLOCK_S: tl.constexpr,
    RECENT: tl.constexpr,
    EXACT: tl.constexpr,
):
    """The first row that may see some of BLOCK_S keys, and the one after the last such row.

    EXACT: that may see some of them in full precision.
    """
    from_row = tl.full((), 0, tl.int32) + T
    to_row = tl.full((), 0, tl.int32)
    for begin in range(0, T, 1024):
        t = begin + tl.arange(0, 1024)
        start = tl.load(first + t, mask=t < T, other=S)
        end = tl.load(beyond + t, mask=t < T, other=0)
        sees = (end > s_first) & (start < s_first + BLOCK_S)
        if EXACT:
            sees = sees & (end - RECENT < s_first + BLOCK_S)
        from_row = tl.minimum(from_row, tl.min(tl.where(sees, t, T), axis=0))
        to_row = tl.maximum(to_row, tl.max(tl.where(sees, t + 1, 0), axis=0))
    return from_row, to_row


@triton.jit
def level_key_grads(
    query,
    key,
    exact_query,
    exact_key,
    exact_gain,
    value,
    gain,
    first,
    beyond,
    mask,
    level,
    cut,
    log_sum,
    delta,
    output_grad,
    key_grad,  # (B, G, S, D) float32
    exact_key_grad,  # as exact_key
    value_grad,  # (B, G, S, V)
    query_strides,
    key_strides,
    exact_query_strides,
    exact_key_strides,
    value_strides,
    gain_strides,
    need_strides,
    output_grad_strides,
    key_grad_strides,
    exact_key_grad_strides,
    value_grad_strides,
    mask_strides,
    T,
    S,
    H: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    V: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
    RECENT: tl.constexpr,
):
    """Gradients of BLOCK_S keys and values, summed over the query heads that share them."""
    blocks = tl.cdiv(S, BLOCK_S)
    group = tl.program_id(0) // blocks
    b, g = group // G, group % G
    s_first = (tl.program_id(0) % blocks) * BLOCK_S
    s = s_first + tl.arange(0, BLOCK_S)
    d, v_d = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_V)
    k = load_rows(head_of(key, key_strides, b, g), key_strides[2], s, d, S, D)
    v = load_rows(head_of(value, value_strides, b, g), value_strides[2], s, v_d, S, V)
    key_total = tl.zeros((BLOCK_S, BLOCK_D), tl.float32)
    exact_total = tl.zeros((BLOCK_S, BLOCK_D), tl.float32)
    value_total = tl.zeros((BLOCK_S, BLOCK_V), tl.float32)

    for member in range(H // G):
        h = g * (H // G) + member
        queries = head_of(query, query_strides, b, h)
        output_grads = head_of(output_grad, output_grad_strides, b, h)
        gains = gain + b * gain_strides[0] + h * gain_strides[1]
        first_row = (b * H + h).to(tl.int64) * T
        levels, cuts, log_sums = level + first_row, cut + first_row, log_sum + first_row
        firsts = first + b * need_strides[0] + h * need_strides[1]
        beyonds = beyond + b * need_strides[0] + h * need_strides[1]
        begins, ends = rows_that_see(firsts, beyonds, s_first, T, S, BLOCK_S, RECENT, False)
        for begin in range((begins // BLOCK_T) * BLOCK_T, ends, BLOCK_T):
            t = begin + tl.arange(0, BLOCK_T)
            real = t < T
            seen_beyond = tl.load(beyonds + t, mask=real, other=0)
            q = load_rows(queries, query_strides[2], t, d, T, D)
            do = load_rows(output_grads, output_grad_strides[2], t, v_d, T, V)
            threshold, last, sums = selection_of_rows(levels, cuts, log_sums, t, real)
            mean = tl.load(delta + first_row + t, mask=real, other=0.0)
            factor = tl.load(gains + t * gain_strides[2], mask=real, other=0.0)
            products = sign_products(
                q, k, mask, mask_strides, b, h, t, s, T, S, seen_beyond, RECENT
            )
            weights = kept_weights(products, factor, threshold, last, sums, s)
            weights_grad = dot(do, tl.trans(v), None, "ieee") - mean[:, None]
            gradient = factor[:, None] * weights * weights_grad
            key_total = dot(tl.trans(gradient.to(v.dtype)), q, key_total, "ieee")
            value_total = dot(tl.trans(weights.to(v.dtype)), do, value_total, "ieee")
        if exact_query is not None:
            exact_keys = head_of(exact_key, exact_key_strides, b, g)
            exact_queries = head_of(exact_query, exact_query_strides, b, h)
            begins, ends = rows_that_see(firsts, beyonds, s_first, T, S, BLOCK_S, RECENT, True)
            for begin in range((begins // BLOCK_T) * BLOCK_T, ends, BLOCK_T):
                t = begin + tl.arange(0, BLOCK_T)
                real = t < T
                seen_beyond = tl.load(beyonds + t, mask=real, other=0)
                q = load_rows(exact_queries, exact_query_strides[2], t, d, T, D)
                do = load_rows(output_grads, output_grad_strides[2], t, v_d, T, V)
                sums = tl.load(log_sums + t, mask=real, other=0.0)
                mean = tl.load(delta + first_row + t, mask=real, other=0.0)
                _signs, exact = keys_in_sight(
                    mask, mask_strides, b, h, t, s, T, S, seen_beyond, RECENT
                )
                exact_k = load_rows(exact_keys, exact_key_strides[2], s, d, S, D)
                logits = exact_logits(q, exact_k, exact_gain, exact)
                weights = tl.exp(tl.where(exact, logits - sums[:, None], NOWHERE))
                weights_grad = dot(do, tl.trans(v), None, "ieee") - mean[:, None]
                gradient = (weights * weights_grad).to(v.dtype)
                exact_total = dot(tl.trans(gradient), q, exact_total, "ieee")
                value_total = dot(tl.trans(weights.to(v.dtype)), do, value_total, "ieee")

    grads = head_of(key_grad, key_grad_strides, b, g)
    store_rows(grads, key_grad_strides[2], s, d, S, D, key_total)
    if exact_query is not None:
        grads = head_of(exact_key_grad, exact_key_grad_strides, b, g)
        store_rows(grads, exact_key_grad_strides[2], s, d, S, D, exact_gain * exact_total)
    grads = head_of(value_grad, value_grad_strides, b, g)
    store_rows(grads, value_grad_strides[2], s, v_d, S, V, value_total)
