# mypy: allow-untyped-defs
"""Compiled inner loops of the CPU backend: score a block of keys, select the top N, average.

A score is the number of equal bits plus one, in one byte (two beyond 253 bits), 0 where forbidden;
`levels` is what a key equal to the query scores, head_dim + 1. Blocks are of 64 keys.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from had.attention.backends.cpu_bits import (
    append_positions,
    bit_count,
    keep_lowest,
    nonnegative,
    transpose_bytes,
    transpose_double,
)
from had.attention.backends.cpu_emit import KEYS
from had.attention.backends.cpu_vectors import (
    add_differences,
    add_scaled,
    at_least,
    item,
    largest,
    load,
    maximum,
    no_floats,
    splat,
    store,
    store_scaled,
    subtract,
    where,
)

ROWS = 4
"""Query rows scored together: each vector of key bits is loaded once for all of them."""

SPARE = KEYS
"""Room that a list of indices needs beyond the kept keys."""


@njit(nogil=True, error_model="numpy")
def aligned(size):
    """Uninitialised bytes that start at a cache line."""
    buffer = np.empty(size + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    return buffer[start : start + size]


@njit(nogil=True, error_model="numpy")
def mask_word(source, start, count):
    """The bits of `count` <= 64 bytes, set where they are not zero."""
    if count == KEYS:
        return at_least(load(source, start), 1)
    word = np.uint64(0)
    for key in range(count):
        if source[start + key] != 0:
            word |= np.uint64(1) << np.uint64(key)
    return word


@njit(nogil=True, error_model="numpy", forceinline=True)
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


@njit(nogil=True, error_model="numpy", forceinline=True)
def spread_query(words, start, width, target, place):
    """Each byte of a query's bits in 64 lanes, ready to be compared with a plane of keys."""
    for byte in range(4 * width):
        value = (words[start + byte // 4] >> (8 * (byte % 4))) & 255
        store(target, place + byte * KEYS, splat(target, value))


@njit(nogil=True, error_model="numpy")
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
        if stride == 4 and width == 4 and inside == KEYS:
            transpose_double(words, start + key * stride, planes, block * 16 * KEYS)
            continue
        for column in range(columns):
            place = (block * columns + column) * 8 * KEYS
            source = start + key * stride + 2 * column
            if stride == 2 and inside == KEYS:
                transpose_bytes(words, source, planes, place)
                continue
            _gather_pairs(words, source, stride, min(2, width - 2 * column), inside, pairs)
            transpose_bytes(pairs, 0, planes, place)


@njit(nogil=True, error_model="numpy")
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


@njit(nogil=True, error_model="numpy")
def score_four(
    planes, stride, first, count, queries, row, scores, blocks, levels, mask, masks, peaks
):
    """Scores of the rows `row` .. `row + 3` against a chunk of keys.

    Args:
        planes, stride: bits of the chunk's keys, [block][byte][64]; bytes of a key.
        first, count: the chunk's first block, and how many it has.
        queries: bits of the queries, [row][byte][64].
        scores, blocks: result, [row][block][64], and the blocks of a row.
        levels: the score of a key equal to the query.
        mask, masks: bits, [row of the mask][block], and which row of the mask each query has.
        peaks: the largest score of each row so far, updated.
    """
    zero, best = splat(scores, 0), splat(scores, levels)
    peak0 = peak1 = peak2 = peak3 = zero
    query0 = row * stride * KEYS
    query1 = query0 + stride * KEYS
    query2, query3 = query1 + stride * KEYS, query1 + 2 * stride * KEYS
    words0, words1 = masks[row] * blocks, masks[row + 1] * blocks
    words2, words3 = masks[row + 2] * blocks, masks[row + 3] * blocks
    for block in range(count):
        sum0 = sum1 = sum2 = sum3 = zero
        for byte in range(stride):
            key, lane = load(planes, (block * stride + byte) * KEYS), byte * KEYS
            sum0 = add_differences(sum0, key, load(queries, query0 + lane))
            sum1 = add_differences(sum1, key, load(queries, query1 + lane))
            sum2 = add_differences(sum2, key, load(queries, query2 + lane))
            sum3 = add_differences(sum3, key, load(queries, query3 + lane))
        at = first + block
        score0 = where(item(mask, words0 + at), subtract(best, sum0))
        score1 = where(item(mask, words1 + at), subtract(best, sum1))
        score2 = where(item(mask, words2 + at), subtract(best, sum2))
        score3 = where(item(mask, words3 + at), subtract(best, sum3))
        at = (row * blocks + at) * KEYS
        store(scores, at, score0)
        store(scores, at + blocks * KEYS, score1)
        store(scores, at + 2 * blocks * KEYS, score2)
        store(scores, at + 3 * blocks * KEYS, score3)
        peak0, peak1 = maximum(peak0, score0), maximum(peak1, score1)
        peak2, peak3 = maximum(peak2, score2), maximum(peak3, score3)
    peaks[row] = max(peaks[row], largest(peak0))
    peaks[row + 1] = max(peaks[row + 1], largest(peak1))
    peaks[row + 2] = max(peaks[row + 2], largest(peak2))
    peaks[row + 3] = max(peaks[row + 3], largest(peak3))


@njit(nogil=True, error_model="numpy")
def score_one(
    planes, stride, first, count, queries, row, scores, blocks, levels, mask, masks, peaks
):
    """As `score_four`, for one row."""
    best, peak, words = splat(scores, levels), splat(scores, 0), masks[row] * blocks
    for block in range(count):
        differences = splat(scores, 0)
        for byte in range(stride):
            key = load(planes, (block * stride + byte) * KEYS)
            query = load(queries, (row * stride + byte) * KEYS)
            differences = add_differences(differences, key, query)
        at = first + block
        score = where(item(mask, words + at), subtract(best, differences))
        store(scores, (row * blocks + at) * KEYS, score)
        peak = maximum(peak, score)
    peaks[row] = max(peaks[row], largest(peak))


@njit(nogil=True, error_model="numpy", forceinline=True)
def _count_four(scores, place, blocks, level):
    """How many scores of a row reach the level, and each of the three above it."""
    count0 = count1 = count2 = count3 = 0
    for block in range(blocks):
        score = load(scores, place + block * KEYS)
        count0 += bit_count(at_least(score, level))
        count1 += bit_count(at_least(score, level + 1))
        count2 += bit_count(at_least(score, level + 2))
        count3 += bit_count(at_least(score, level + 3))
    return count0, count1, count2, count3


@njit(nogil=True, error_model="numpy", forceinline=True)
def find_threshold(scores, place, blocks, need, guess, peak):
    """The highest level that `need` scores reach, and how many are above it.

    Four neighbouring levels are counted in one pass over the scores. Rows of a head agree to a
    level or two, so the first pass mostly decides; otherwise the window moves, further each time,
    but never by more than half of the levels that are left.

    Args:
        need: 1 .. the number of allowed keys.
        guess: the level tried first.
        peak: the row's largest score.
    """
    low, high, step = 0, peak + 1, 4  # count(low) >= need > count(high)
    level = max(0, min(guess - 1, peak - 2))
    while True:
        count0, count1, count2, count3 = _count_four(scores, place, blocks, level)
        if count0 >= need > count3:
            if count2 >= need:
                return level + 2, count3
            return (level + 1, count2) if count1 >= need else (level, count1)
        if count0 < need:
            high = level
            level = max(level - step, (low + high) // 2)
        else:
            low = level + 3
            level = min(level + step, (low + high) // 2, peak - 2)
        step *= 2


@njit(nogil=True, error_model="numpy", forceinline=True)
def select_keys(scores, place, blocks, level, ties, indices, start):
    """List the keys above the level and the first `ties` that equal it, ascending; their number."""
    kept = start
    for block in range(blocks):
        score = load(scores, place + block * KEYS)
        chosen = at_least(score, level)
        if chosen == np.uint64(0):
            continue
        tied = chosen & ~at_least(score, level + 1)
        first = keep_lowest(tied, ties)
        ties -= bit_count(first)
        chosen ^= tied ^ first  # the other ties come too late
        append_positions(chosen, block * KEYS, indices, kept)
        kept += bit_count(chosen)
    return kept - start


@njit(nogil=True, error_model="numpy", forceinline=True)
def _weight(scores, place, table, best, key):
    """exp(-2 gain (best - score)) by table; `best` is where the entry of the best score lies."""
    return item(table, best - np.int64(item(scores, place + key)))


@njit(nogil=True, error_model="numpy", forceinline=True)
def average(
    values, start, stride, width, scores, place, table, best, indices, first, kept, output, to
):
    """Softmax average of the kept keys' values, 64 columns at a time, then 16.

    Args:
        values, start, stride, width: where the first key's lie, from key to key, V >= 16.
        scores, place: the row's.
        table, best: softmax weights, and where that of the row's largest score lies.
        indices, first, kept: the kept keys.
        output, to: where the result goes.
    """
    column = 0
    while column + 64 <= width:
        total = np.float32(0)
        sum0 = sum1 = sum2 = sum3 = no_floats()
        for i in range(first, first + kept):
            key = np.int64(item(indices, i))
            weight, row = _weight(scores, place, table, best, key), start + key * stride + column
            total += weight
            sum0 = add_scaled(sum0, weight, values, row)
            sum1 = add_scaled(sum1, weight, values, row + 16)
            sum2 = add_scaled(sum2, weight, values, row + 32)
            sum3 = add_scaled(sum3, weight, values, row + 48)
        share = np.float32(1) / total
        store_scaled(output, to + column, share, sum0)
        store_scaled(output, to + column + 16, share, sum1)
        store_scaled(output, to + column + 32, share, sum2)
        store_scaled(output, to + column + 48, share, sum3)
        column += 64
    while column < width:
        column = min(column, width - 16)  # the last 16 may overlap those before
        total, sum0 = np.float32(0), no_floats()
        for i in range(first, first + kept):
            key = np.int64(item(indices, i))
            weight = _weight(scores, place, table, best, key)
            total += weight
            sum0 = add_scaled(sum0, weight, values, start + key * stride + column)
        store_scaled(output, to + column, np.float32(1) / total, sum0)
        column += 16
