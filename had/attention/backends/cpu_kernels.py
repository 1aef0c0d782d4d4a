# mypy: allow-untyped-defs
"""Compiled inner loops of the CPU backend: score a block of keys, select the top N, average.

A score is the number of equal bits plus one, in one byte (two beyond 253 bits), 0 where forbidden;
`levels` is what a key equal to the query scores, head_dim + 1. Blocks are of 64 keys.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from had.attention.backends.cpu_vectors import (
    KEYS,
    add_differences,
    add_scaled,
    at_least,
    bit_count,
    largest,
    load,
    lowest_bit,
    maximum,
    no_floats,
    nonnegative,
    splat,
    store,
    store_scaled,
    subtract,
    transpose_bytes,
    where,
)

ROWS = 4
"""Query rows scored together: each vector of key bits is loaded once for all of them."""

_SPARE = 8  # indices written at once, wanted or not


@njit(nogil=True)
def aligned(size):
    """Uninitialised bytes that start at a cache line."""
    buffer = np.empty(size + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    return buffer[start : start + size]


@njit(nogil=True)
def mask_word(source, start, count):
    """The bits of `count` <= 64 bytes, set where they are not zero."""
    if count == KEYS:
        return at_least(load(source, start), 1)
    word = np.uint64(0)
    for key in range(count):
        if source[start + key] != 0:
            word |= np.uint64(1) << np.uint64(key)
    return word


@njit(nogil=True)
def pack_row(source, start, width, target, place):
    """One bit for each float32 of a row, 1 where it is >= 0, in int32 words."""
    done = 0
    while done + KEYS <= width:
        bits = nonnegative(source, start + done)
        target[place] = np.int32(np.uint32(bits & np.uint64(0xFFFFFFFF)))
        target[place + 1] = np.int32(np.uint32(bits >> np.uint64(32)))
        done += KEYS
        place += 2
    while done < width:
        word = np.uint32(0)
        for bit in range(min(32, width - done)):
            if source[start + done + bit] >= 0:
                word |= np.uint32(1) << np.uint32(bit)
        target[place] = np.int32(word)
        done += 32
        place += 1


@njit(nogil=True)
def spread_query(words, start, width, target, place):
    """Each byte of a query's bits in 64 lanes, ready to be compared with a plane of keys."""
    for byte in range(4 * width):
        value = (words[start + byte // 4] >> (8 * (byte % 4))) & 255
        store(target, place + byte * KEYS, splat(target, value))


@njit(nogil=True)
def split_keys(words, start, stride, width, first, blocks, keys, pairs, planes):
    """Planes of the keys in `blocks` blocks from `first` on: byte p of 64 keys' bits in a row.

    Args:
        words, start, stride, width: bits of the keys, int32; where the first key's lie, words from
            one key to the next, words of a key.
        keys: S; lanes beyond it are zero.
        pairs: room for 64 pairs of words.
        planes: result, [block][byte][64].
    """
    columns = (width + 1) // 2
    for block in range(blocks):
        key = (first + block) * KEYS
        inside = min(KEYS, keys - key)
        for column in range(columns):
            place = (block * columns + column) * 8 * KEYS
            source = start + key * stride + 2 * column
            if stride == 2 and inside == KEYS:
                transpose_bytes(words, source, planes, place)
                continue
            _gather_pairs(words, source, stride, min(2, width - 2 * column), inside, pairs)
            transpose_bytes(pairs, 0, planes, place)


@njit(nogil=True)
def _gather_pairs(words, source, stride, width, inside, pairs):
    """The same pair of words of 64 keys, side by side; zeros where there is none."""
    if width == 2 and inside == KEYS:
        for key in range(KEYS):
            pairs[2 * key] = words[source + key * stride]
            pairs[2 * key + 1] = words[source + key * stride + 1]
        return
    pairs[: 2 * KEYS] = 0
    for key in range(inside):
        for word in range(width):
            pairs[2 * key + word] = words[source + key * stride + word]


@njit(nogil=True)
def score_four(planes, stride, first, count, queries, scores, blocks, levels, mask, masks, peaks):
    """Scores of four rows against a chunk of keys.

    Args:
        planes, stride: bits of the chunk's keys, [block][byte][64]; bytes of a key.
        first, count: the chunk's first block, and how many it has.
        queries: bits of the four queries, [row][byte][64].
        scores, blocks: result, [row][block][64], and the blocks of a row.
        levels: the score of a key equal to the query.
        mask, masks: bits, [row of the mask][block], and which row of the mask each query has.
        peaks: the largest score of each row so far, updated.
    """
    zero = splat(scores, 0)
    peak0 = peak1 = peak2 = peak3 = zero
    row = stride * KEYS
    for block in range(count):
        sum0 = sum1 = sum2 = sum3 = zero
        for byte in range(stride):
            key = load(planes, (block * stride + byte) * KEYS)
            lane = byte * KEYS
            sum0 = add_differences(sum0, key, load(queries, lane))
            sum1 = add_differences(sum1, key, load(queries, lane + row))
            sum2 = add_differences(sum2, key, load(queries, lane + 2 * row))
            sum3 = add_differences(sum3, key, load(queries, lane + 3 * row))
        at = first + block
        score0 = where(mask[masks[0] * blocks + at], subtract(splat(scores, levels), sum0))
        score1 = where(mask[masks[1] * blocks + at], subtract(splat(scores, levels), sum1))
        score2 = where(mask[masks[2] * blocks + at], subtract(splat(scores, levels), sum2))
        score3 = where(mask[masks[3] * blocks + at], subtract(splat(scores, levels), sum3))
        store(scores, at * KEYS, score0)
        store(scores, (blocks + at) * KEYS, score1)
        store(scores, (2 * blocks + at) * KEYS, score2)
        store(scores, (3 * blocks + at) * KEYS, score3)
        peak0, peak1 = maximum(peak0, score0), maximum(peak1, score1)
        peak2, peak3 = maximum(peak2, score2), maximum(peak3, score3)
    peaks[0] = max(peaks[0], largest(peak0))
    peaks[1] = max(peaks[1], largest(peak1))
    peaks[2] = max(peaks[2], largest(peak2))
    peaks[3] = max(peaks[3], largest(peak3))


@njit(nogil=True)
def score_one(planes, stride, first, count, queries, scores, blocks, levels, mask, masks, peaks):
    """As `score_four`, for one row."""
    peak = splat(scores, 0)
    for block in range(count):
        differences = splat(scores, 0)
        for byte in range(stride):
            key = load(planes, (block * stride + byte) * KEYS)
            differences = add_differences(differences, key, load(queries, byte * KEYS))
        at = first + block
        score = where(mask[masks[0] * blocks + at], subtract(splat(scores, levels), differences))
        store(scores, at * KEYS, score)
        peak = maximum(peak, score)
    peaks[0] = max(peaks[0], largest(peak))


@njit(nogil=True)
def count_from(scores, blocks, level):
    """How many scores of a row reach the level."""
    total = 0
    for block in range(blocks):
        total += bit_count(at_least(load(scores, block * KEYS), level))
    return total


@njit(nogil=True)
def find_threshold(scores, blocks, need, guess, peak):
    """The highest level that `need` scores reach, and how many are above it.

    Args:
        need: 1 .. the number of allowed keys.
        guess: tried first, then its neighbours at growing distance; rows of a head agree to a
            level or two, so two or three counts decide where a bisection takes seven.
        peak: the row's largest score.
    """
    low, high, above = 1, peak + 1, 0  # count(low) >= need > count(high) = above
    probe, step = min(max(guess, 2), peak), 1
    below_known = above_known = False
    while high - low > 1:
        count = count_from(scores, blocks, probe)
        if count >= need:
            low, below_known = probe, True
        else:
            high, above, above_known = probe, count, True
        if below_known and above_known:
            probe = (low + high) // 2
        else:
            probe = min(low + step, high - 1) if below_known else max(high - step, low + 1)
        step *= 2
    return low, above


@njit(nogil=True)
def select_keys(scores, blocks, level, ties, indices):
    """Indices of the scores above the level and of the first `ties` that equal it, ascending."""
    kept = 0
    for block in range(blocks):
        score = load(scores, block * KEYS)
        chosen = at_least(score, level)
        if chosen == np.uint64(0):
            continue
        tied = chosen & ~at_least(score, level + 1)
        count = bit_count(tied)
        if count > ties:
            for _ in range(ties):
                tied &= tied - np.uint64(1)
            chosen ^= tied  # what is left of them comes too late
            count = ties
        ties -= count
        kept = _write_indices(chosen, block * KEYS, indices, kept)
    return kept


@njit(nogil=True)
def _write_indices(chosen, first, indices, kept):
    """Append the positions of a mask's bits; eight are written blindly, which needs no branch."""
    count = bit_count(chosen)
    for i in range(_SPARE):
        indices[kept + i] = first + lowest_bit(chosen)
        chosen &= chosen - np.uint64(1)
    for i in range(_SPARE, count):
        indices[kept + i] = first + lowest_bit(chosen)
        chosen &= chosen - np.uint64(1)
    return kept + count


@njit(nogil=True)
def weigh(scores, indices, kept, table, peak, weights):
    """Softmax weights of the kept keys before they are divided by their sum, which is returned."""
    total = np.float32(0)
    for i in range(kept):
        weight = table[peak - np.int64(scores[indices[i]])]
        weights[i] = weight
        total += weight
    return total


@njit(nogil=True)
def average(values, start, stride, width, indices, weights, kept, factor, output, place):
    """factor * sum of weight times value over the kept keys, 64 columns at a time, then 16."""
    column = 0
    while column + 64 <= width:
        from_, to = start + column, place + column
        _average_64(values, from_, stride, indices, weights, kept, factor, output, to)
        column += 64
    while column < width:
        column = min(column, width - 16)  # the last 16 may overlap those before
        from_, to = start + column, place + column
        _average_16(values, from_, stride, indices, weights, kept, factor, output, to)
        column += 16


@njit(nogil=True)
def _average_64(values, start, stride, indices, weights, kept, factor, output, place):
    sum0 = sum1 = sum2 = sum3 = no_floats()
    for i in range(kept):
        weight, row = weights[i], start + indices[i] * stride
        sum0 = add_scaled(sum0, weight, values, row)
        sum1 = add_scaled(sum1, weight, values, row + 16)
        sum2 = add_scaled(sum2, weight, values, row + 32)
        sum3 = add_scaled(sum3, weight, values, row + 48)
    store_scaled(output, place, factor, sum0)
    store_scaled(output, place + 16, factor, sum1)
    store_scaled(output, place + 32, factor, sum2)
    store_scaled(output, place + 48, factor, sum3)


@njit(nogil=True)
def _average_16(values, start, stride, indices, weights, kept, factor, output, place):
    total = no_floats()
    for i in range(kept):
        total = add_scaled(total, weights[i], values, start + indices[i] * stride)
    store_scaled(output, place, factor, total)
