# mypy: allow-untyped-defs
"""Compiled inner loops of the CPU backend: signs to bits, the top N of a row, their average.

Scores are those of `cpu_scores`, in blocks of 64 keys.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from had.attention.backends.cpu_bits import (
    append_positions,
    bit_count,
    keep_lowest,
    nonnegative,
)
from had.attention.backends.cpu_emit import KEYS
from had.attention.backends.cpu_vectors import (
    add_scaled,
    at_least,
    load,
    no_floats,
    store_scaled,
)

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
def select_keys(scores, place, blocks, level, ties, indices):
    """List the keys above the level and the first `ties` that equal it, ascending; their number."""
    kept = 0
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
    return kept


@njit(nogil=True, error_model="numpy", forceinline=True)
def weigh(scores, place, table, best, indices, weights, kept):
    """Softmax weights of the kept keys, exp(-2 gain (best - score)), and their sum.

    Args:
        scores, place: the row's.
        table, best: exp(-2 gain m), and where that of the row's largest score lies.
        indices, weights, kept: the kept keys, the result, and how many they are.
    """
    total = np.float32(0)
    for i in range(kept):
        score = np.int64(scores[place + np.int64(indices[i])])
        weights[i] = table[best - score]
        total += weights[i]
    return total


@njit(nogil=True, error_model="numpy", forceinline=True)
def average(values, start, stride, width, indices, weights, kept, share, output, to):
    """Weighted sum of the kept keys' values, 64 columns at a time, then 16.

    Args:
        values, start, stride, width: where the first key's lie, from key to key, V >= 16.
        indices, weights, kept: the kept keys, what each counts, and how many they are.
        share: factor of the sum.
        output, to: where the result goes.
    """
    column = 0
    while column + 64 <= width:
        sum0 = sum1 = sum2 = sum3 = no_floats()
        for i in range(kept):
            weight = weights[i]
            row = start + np.int64(indices[i]) * stride + column
            sum0 = add_scaled(sum0, weight, values, row)
            sum1 = add_scaled(sum1, weight, values, row + 16)
            sum2 = add_scaled(sum2, weight, values, row + 32)
            sum3 = add_scaled(sum3, weight, values, row + 48)
        store_scaled(output, to + column, share, sum0)
        store_scaled(output, to + column + 16, share, sum1)
        store_scaled(output, to + column + 32, share, sum2)
        store_scaled(output, to + column + 48, share, sum3)
        column += 64
    while column < width:
        column = min(column, width - 16)  # the last 16 may overlap those before
        sum0 = no_floats()
        for i in range(kept):
            row = start + np.int64(indices[i]) * stride + column
            sum0 = add_scaled(sum0, weights[i], values, row)
        store_scaled(output, to + column, share, sum0)
        column += 16
