# mypy: allow-untyped-defs
"""Compiled inner loops of the CPU backend: the scores of queries against blocks of 64 keys.

A score is the number of equal bits plus one, in one byte (two beyond 253 bits), 0 where forbidden;
`levels` is what a key equal to the query scores, head_dim + 1.

Several rows share the work of splitting key bits into planes. A single row has nobody to share it
with: where keys lie one behind the other it counts the differing bits of whole words instead.
"""

from __future__ import annotations

from numba import njit

from had.attention.backends.cpu_bits import (
    add_double_differences,
    add_pair_differences,
    transpose_bytes,
    transpose_double,
)
from had.attention.backends.cpu_emit import KEYS
from had.attention.backends.cpu_vectors import (
    add_differences,
    largest,
    load,
    maximum,
    splat,
    store,
    subtract,
    where,
)

ROWS = 4
"""Query rows scored together: each vector of key bits is loaded once for all of them."""

VECTOR_WORDS = 16
"""int32 words of a vector register."""


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
    for word in range(2 * KEYS):
        pairs[word] = 0
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
        score0 = where(mask[words0 + at], subtract(best, sum0))
        score1 = where(mask[words1 + at], subtract(best, sum1))
        score2 = where(mask[words2 + at], subtract(best, sum2))
        score3 = where(mask[words3 + at], subtract(best, sum3))
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
        score = where(mask[words + at], subtract(best, differences))
        store(scores, (row * blocks + at) * KEYS, score)
        peak = maximum(peak, score)
    peaks[row] = max(peaks[row], largest(peak))


@njit(nogil=True, error_model="numpy", forceinline=True)
def repeat_query(words, start, width, target, place):
    """A query's 2 or 4 words over and over, as many as a vector holds."""
    for word in range(VECTOR_WORDS):
        target[place + word] = words[start + word % width]


@njit(nogil=True, error_model="numpy")
def score_words(
    words,
    start,
    width,
    first,
    count,
    keys,
    spare,
    queries,
    query,
    scores,
    place,
    levels,
    mask,
    mask_at,
):
    """Scores of one row against keys of 2 or 4 words that lie one behind the other; their largest.

    Args:
        words, start, width: bits of the keys; where the first key's lie, words of a key.
        first, count: the first block, and how many are scored.
        keys: S; keys of the last block beyond it are never read.
        spare: room for the words of a block.
        queries, query: words as of `repeat_query`, and where the row's begin.
        scores, place: result, and where the row's begins.
        mask, mask_at: bits by block, and where the row's begin.
    """
    best, peak = splat(scores, levels), splat(scores, 0)
    whole = min(first + count, keys // KEYS)
    for block in range(first, whole):
        differences = _count_words(
            words, start + block * KEYS * width, width, queries, query, scores
        )
        score = where(mask[mask_at + block], subtract(best, differences))
        store(scores, place + block * KEYS, score)
        peak = maximum(peak, score)
    if whole < first + count:
        _copy_words(words, start + whole * KEYS * width, (keys - whole * KEYS) * width, spare)
        differences = _count_words(spare, 0, width, queries, query, scores)
        score = where(mask[mask_at + whole], subtract(best, differences))
        store(scores, place + whole * KEYS, score)
        peak = maximum(peak, score)
    return largest(peak)


@njit(nogil=True, error_model="numpy", forceinline=True)
def _count_words(words, start, width, queries, query, scores):
    """Differing bits of 64 keys, in lanes as wide as a score."""
    zero = splat(scores, 0)
    if width == 2:
        return add_pair_differences(zero, words, start, queries, query)
    return add_double_differences(zero, words, start, queries, query)


@njit(nogil=True, error_model="numpy")
def _copy_words(words, start, count, spare):
    """Copy to the beginning of `spare`."""
    for word in range(count):
        spare[word] = words[start + word]
