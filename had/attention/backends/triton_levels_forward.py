# mypy: allow-untyped-defs
"""Forward kernel for signs: a row's keys are met block by block, its scores are never kept.

A dot product of D signs has D + 1 values, its levels. One program owns BLOCK_T query rows of one
(batch, head). It walks over their keys a few times to find the level that the N-th best key has,
once to find up to which key that level is kept, and once more to sum the values. The RECENT last
keys of a row may be exact: kept in any case, by scores in full precision.
Shapes: B batch, H query heads, G key heads, T queries, S keys, D head_dim, V value_dim.
"""

from __future__ import annotations

import triton
import triton.language as tl

from had.attention.backends.triton_rows_tiles import apply_mask, dot, head_of, load_rows, store_rows

NOWHERE = tl.constexpr(-1e30)
"""Stands for the dot product with a forbidden key."""


@triton.jit
def rows_of_program(T, H: tl.constexpr, BLOCK_T: tl.constexpr):
    """The head among all B * H, its sample b and number h, and the query rows of a program."""
    blocks = tl.cdiv(T, BLOCK_T)
    head = tl.program_id(0) // blocks
    # Causal rows at the end have the most keys: they go first.
    t = (blocks - 1 - tl.program_id(0) % blocks) * BLOCK_T + tl.arange(0, BLOCK_T)
    return head, head // H, head % H, t


@triton.jit
def keys_of_rows(first, beyond, place, real, S, BLOCK_S: tl.constexpr):
    """The end of the keys that each row sees, and where the blocks of all they see start and end.

    Args:
        place: of the rows among `first` and `beyond`.
    """
    seen_first = tl.load(first + place, mask=real, other=S)
    seen_beyond = tl.load(beyond + place, mask=real, other=0)
    start = (tl.min(seen_first, axis=0) // BLOCK_S) * BLOCK_S
    return seen_beyond, start, tl.max(seen_beyond, axis=0)


@triton.jit
def keys_in_sight(
    mask,
    mask_strides,
    b,
    h,
    t,
    s,
    T,
    S,
    seen_beyond,
    RECENT: tl.constexpr,
):
    """Which keys of a block are scored by their signs, and which in full precision, (t, s)."""
    inside = (t < T)[:, None] & (s < S)[None, :]
    allowed = apply_mask(inside, mask, mask_strides, b, h, t[:, None], s[None, :], S, True)
    near = s[None, :] >= (seen_beyond - RECENT)[:, None]
    exact = allowed & near
    return allowed & ~exact, exact


@triton.jit
def sign_products(q, k, mask, mask_strides, b, h, t, s, T, S, seen_beyond, RECENT: tl.constexpr):
    """Dot products with the keys of a block that are scored by their signs, NOWHERE elsewhere."""
    signs, _exact = keys_in_sight(mask, mask_strides, b, h, t, s, T, S, seen_beyond, RECENT)
    return tl.where(signs, dot(q, tl.trans(k), None, "ieee"), NOWHERE)


@triton.jit
def first_exact_block(seen_beyond, start, S, BLOCK_S, RECENT: tl.constexpr):
    """Where the blocks with exact keys of some rows begin; they end where the rows' keys do."""
    near = tl.min(tl.where(seen_beyond > 0, seen_beyond, S), axis=0) - RECENT
    return (tl.maximum(near, start) // BLOCK_S) * BLOCK_S


@triton.jit
def exact_logits(q, k, gain, exact):
    """Full-precision scores of the exact keys of a block, NOWHERE elsewhere."""
    return tl.where(exact, gain * dot(q, tl.trans(k), None, "ieee"), NOWHERE)


@triton.jit
def narrowed(low, high, more, lower, upper, reach_lower, reach_upper, wanted):
    """One step of the search for each row's level, which lies in low .. high - 1.

    Args:
        more: keys at `high` and above.
        lower, upper: what parts low .. high in three.
        reach_lower, reach_upper: keys at each of them and above.
        wanted: keys that are to be kept.

    Returns:
        The third that holds the level, and how many keys are at its `high` and above.
    """
    enough_upper, enough_lower = reach_upper >= wanted, reach_lower >= wanted
    # A border that did not move between low and high tells nothing new.
    new_low = tl.where(enough_upper & (upper < high), upper, low)
    new_low = tl.where(~enough_upper & enough_lower & (lower < high), lower, new_low)
    fewer = ~enough_lower & (lower < high)
    more = tl.where(fewer, reach_lower, more)
    middle = enough_lower & ~enough_upper & (upper < high)
    more = tl.where(middle, reach_upper, more)
    high = tl.where(fewer, lower, tl.where(middle, upper, high))
    return new_low, high, more


@triton.jit
def kept_keys(products, level, cut, s):
    """The row's selection among a block of keys: above its level, and at it up to the cut."""
    tied = (products == level[:, None]) & (s[None, :] <= cut[:, None])
    return (products > level[:, None]) | tied


@triton.jit
def attend_levels(
    query,  # (B, H, T, D) signs, of value's dtype
    key,  # (B, G, S, D) signs
    exact_query,  # (B, H, T, D), or None if RECENT is 0
    exact_key,  # (B, G, S, D)
    exact_gain,
    value,  # (B, G, S, V)
    gain,  # (B, H, T) float32
    need,  # (B, M, T) int32, M = 1 or H: keys that a row keeps by their signs
    first,  # (B, M, T) int32: the first key that a row may see
    beyond,  # (B, M, T) int32: the key after the last one
    mask,  # (B, H, T, S) uint8 or None
    output,  # (B, H, T, V)
    level,  # (B, H, T) float32: the lowest dot product that is kept
    cut,  # (B, H, T) int32: the last key that is kept at that level
    log_sum,  # (B, H, T) float32: log-sum-exp over the kept keys
    query_strides,
    key_strides,
    exact_query_strides,
    exact_key_strides,
    value_strides,
    gain_strides,
    need_strides,
    output_strides,
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
    STEPS: tl.constexpr,
):
    """Output, selection and log-sum-exp of BLOCK_T query rows."""
    head, b, h, t = rows_of_program(T, H, BLOCK_T)
    real = t < T
    d, v_d = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_V)
    keys = head_of(key, key_strides, b, h // (H // G))
    values = head_of(value, value_strides, b, h // (H // G))
    q = load_rows(head_of(query, query_strides, b, h), query_strides[2], t, d, T, D)
    needs = b * need_strides[0] + h * need_strides[1] + t
    wanted = tl.load(need + needs, mask=real, other=0)
    seen_beyond, start, end = keys_of_rows(first, beyond, needs, real, S, BLOCK_S)
    if exact_query is not None:
        exact_keys = head_of(exact_key, exact_key_strides, b, h // (H // G))
        exact_queries = head_of(exact_query, exact_query_strides, b, h)
        exact_q = load_rows(exact_queries, exact_query_strides[2], t, d, T, D)

    # In three parts again and again: count(x >= low) >= wanted > count(x >= high).
    low = tl.zeros((BLOCK_T,), tl.int32)
    high = tl.full((BLOCK_T,), D + 1, tl.int32)
    more = tl.zeros((BLOCK_T,), tl.int32)  # keys at `high` and above
    for _step in range(0, STEPS):
        third = (high - low + 2) // 3
        lower, upper = tl.minimum(low + third, high), tl.minimum(low + 2 * third, high)
        least, most = (2 * lower - D).to(tl.float32), (2 * upper - D).to(tl.float32)
        reach_lower = tl.zeros((BLOCK_T,), tl.int32)
        reach_upper = tl.zeros((BLOCK_T,), tl.int32)
        for begin in range(start, end, BLOCK_S):
            s = begin + tl.arange(0, BLOCK_S)
            k = load_rows(keys, key_strides[2], s, d, S, D)
            products = sign_products(
                q, k, mask, mask_strides, b, h, t, s, T, S, seen_beyond, RECENT
            )
            reach_lower += tl.sum((products >= least[:, None]).to(tl.int32), axis=1)
            reach_upper += tl.sum((products >= most[:, None]).to(tl.int32), axis=1)
        low, high, more = narrowed(low, high, more, lower, upper, reach_lower, reach_upper, wanted)

    threshold = tl.where(wanted > 0, (2 * low - D).to(tl.float32), -NOWHERE)
    room = wanted - more
    seen = tl.zeros((BLOCK_T,), tl.int32)
    last = tl.full((BLOCK_T,), -1, tl.int32)
    best = tl.full((BLOCK_T,), NOWHERE, tl.float32)
    for begin in range(start, end, BLOCK_S):
        s = begin + tl.arange(0, BLOCK_S)
        k = load_rows(keys, key_strides[2], s, d, S, D)
        products = sign_products(q, k, mask, mask_strides, b, h, t, s, T, S, seen_beyond, RECENT)
        tied = (products == threshold[:, None]).to(tl.int32)
        rank = seen[:, None] + tl.cumsum(tied, axis=1)
        fits = (tied > 0) & (rank <= room[:, None])
        last = tl.maximum(last, tl.max(tl.where(fits, s[None, :], -1), axis=1))
        seen += tl.sum(tied, axis=1)
        best = tl.maximum(best, tl.max(products, axis=1))

    factor = tl.load(
        gain + b * gain_strides[0] + h * gain_strides[1] + t * gain_strides[2], mask=real, other=0.0
    )
    peak = tl.where(wanted > 0, factor * best, NOWHERE)
    total = tl.zeros((BLOCK_T,), tl.float32)
    sums = tl.zeros((BLOCK_T, BLOCK_V), tl.float32)
    for begin in range(start, end, BLOCK_S):
        s = begin + tl.arange(0, BLOCK_S)
        k = load_rows(keys, key_strides[2], s, d, S, D)
        products = sign_products(q, k, mask, mask_strides, b, h, t, s, T, S, seen_beyond, RECENT)
        kept = kept_keys(products, threshold, last, s)
        weights = tl.exp(tl.where(kept, factor[:, None] * products - peak[:, None], NOWHERE))
        total += tl.sum(weights, axis=1)
        v = load_rows(values, value_strides[2], s, v_d, S, V)
        sums = dot(weights.to(v.dtype), v, sums, "ieee")

    if exact_query is not None:
        near = first_exact_block(seen_beyond, start, S, BLOCK_S, RECENT)
        for begin in range(near, end, BLOCK_S):
            s = begin + tl.arange(0, BLOCK_S)
            _signs, exact = keys_in_sight(mask, mask_strides, b, h, t, s, T, S, seen_beyond, RECENT)
            k = load_rows(exact_keys, exact_key_strides[2], s, d, S, D)
            logits = exact_logits(exact_q, k, exact_gain, exact)
            highest = tl.maximum(peak, tl.max(logits, axis=1))
            shrink = tl.exp(peak - highest)
            peak = highest
            weights = tl.exp(tl.where(exact, logits - peak[:, None], NOWHERE))
            total = total * shrink + tl.sum(weights, axis=1)
            v = load_rows(values, value_strides[2], s, v_d, S, V)
            sums = dot(weights.to(v.dtype), v, sums * shrink[:, None], "ieee")

    peak = tl.where(peak > NOWHERE, peak, 0.0)  # a row without any key
    total = tl.where(total > 0, total, 1.0)
    place = head.to(tl.int64) * T + t
    tl.store(level + place, threshold, mask=real)
    tl.store(cut + place, last, mask=real)
    tl.store(log_sum + place, peak + tl.log(total), mask=real)
    outputs = head_of(output, output_strides, b, h)
    store_rows(outputs, output_strides[2], t, v_d, T, V, sums / total[:, None])


@triton.jit
def visible_keys(
    mask,  # (B, M, T, S) uint8
    first,  # (B, M, T) int32, and so the others: the first allowed key
    beyond,  # the key after the last allowed one
    number,  # how many are allowed
    always,  # how many of them are exact
    strides,
    S,
    M,
    T,
    RECENT: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """What one row of a mask allows."""
    row = tl.program_id(0).to(tl.int64)
    b, h, t = row // (M * T), (row // T) % M, row % T
    keys = mask + b * strides[0] + h * strides[1] + t * strides[2]
    earliest = tl.zeros((BLOCK_S,), tl.int32) + S
    latest = tl.zeros((BLOCK_S,), tl.int32)
    count = tl.zeros((BLOCK_S,), tl.int32)
    for begin in range(0, S, BLOCK_S):
        s = begin + tl.arange(0, BLOCK_S)
        allowed = tl.load(keys + s * strides[3], mask=s < S, other=0) != 0
        earliest = tl.minimum(earliest, tl.where(allowed, s, S))
        latest = tl.maximum(latest, tl.where(allowed, s + 1, 0))
        count += allowed.to(tl.int32)
    begins, ends = tl.min(earliest, axis=0), tl.max(latest, axis=0)
    tl.store(first + row, begins)
    tl.store(beyond + row, ends)
    tl.store(number + row, tl.sum(count, axis=0))
    count = tl.zeros((BLOCK_S,), tl.int32)
    if RECENT > 0:
        for begin in range(0, S, BLOCK_S):
            s = begin + tl.arange(0, BLOCK_S)
            allowed = tl.load(keys + s * strides[3], mask=s < S, other=0) != 0
            count += (allowed & (s >= ends - RECENT)).to(tl.int32)
    tl.store(always + row, tl.sum(count, axis=0))
