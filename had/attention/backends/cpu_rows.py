# mypy: allow-untyped-defs
"""The CPU backend's compiled entry points: packing, masks as bits, attention of a range of rows.

Arrays are one-dimensional and contiguous, with explicit strides in elements, so that every layout
of a tensor runs the same machine code, which is kept on disk (by numba, in `__pycache__`, or in
NUMBA_CACHE_DIR).

A unit of work is up to `Plan.rows` query rows that share a key/value head. For a chunk of keys at a
time their bits are split into planes and all rows are scored; then each row finds its threshold,
collects its keys and averages their values. No result depends on how units are spread over threads.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit

from had.attention.backends.cpu_bits import bit_count
from had.attention.backends.cpu_emit import KEYS
from had.attention.backends.cpu_kernels import (
    ROWS,
    SPARE,
    aligned,
    average,
    find_threshold,
    mask_word,
    pack_row,
    score_four,
    score_one,
    select_keys,
    split_keys,
    spread_query,
)

_CHUNK = 8  # blocks whose key bits stay in the first-level cache while all rows are scored


class Plan(NamedTuple):
    """The geometry of one call; strides of batch, head and row, in elements.

    Attributes:
        heads, groups, queries, keys, words, value_dim: H, G, T, S, W, V.
        levels: head_dim + 1, the score of a key equal to the query.
        rows: query rows of a unit.
        room: the most keys that any row keeps.
        query, key, value: strides of the words and of the values.
        mask: strides in rows of the mask; 0 where rows share one.
        table: strides in rows of the softmax table, of batch and head.
    """

    heads: int
    groups: int
    queries: int
    keys: int
    words: int
    value_dim: int
    levels: int
    rows: int
    room: int
    query: tuple[int, int, int]
    key: tuple[int, int, int]
    value: tuple[int, int, int]
    mask: tuple[int, int, int]
    table: tuple[int, int]


class Scratch(NamedTuple):
    """One thread's memory.

    Attributes:
        planes: key bits of a chunk, [block][byte][64].
        pairs: words of 64 keys, side by side.
        spread: query bits of a unit, [row][byte][64].
        scores: of a unit, [row][key].
        peaks, masks: the largest score of each row, and which row of the mask is its own.
        indices, kept: the keys that each row keeps, and how many.
    """

    planes: np.ndarray
    pairs: np.ndarray
    spread: np.ndarray
    scores: np.ndarray
    peaks: np.ndarray
    masks: np.ndarray
    indices: np.ndarray
    kept: np.ndarray


@njit(nogil=True, error_model="numpy")
def _allocate(plan, blocks, stride, kind):
    spread = aligned(plan.rows * stride * KEYS)
    spread[:] = 0  # an odd number of words leaves planes that no query fills
    return Scratch(
        aligned(_CHUNK * stride * KEYS),
        aligned(8 * KEYS).view(np.int32),
        spread,
        aligned(plan.rows * blocks * KEYS * kind.itemsize).view(kind.dtype),
        np.empty(plan.rows, np.int64),
        np.empty(plan.rows, np.int64),
        aligned(4 * (plan.rows * plan.room + SPARE)).view(np.int32),
        np.empty(plan.rows, np.int64),
    )


@njit(nogil=True, error_model="numpy")
def _place(plan, group, row):
    """Query head and query of a row among those that share a key/value head."""
    share = plan.heads // plan.groups
    return group * share + row // plan.queries, row % plan.queries


@njit(nogil=True, error_model="numpy", forceinline=True)
def _next(head, t, queries):
    """The row after query t of a head, without a division, which takes longer than all this."""
    return (head, t + 1) if t + 1 < queries else (head + 1, 0)


@njit(nogil=True, error_model="numpy")
def _prepare(query, used, plan, batch, group, row, rows, stride, scratch):
    """Spread the unit's queries and find their masks; the blocks that any of them may see."""
    limit, (head, t) = 0, _place(plan, group, row)
    for r in range(rows):
        start = batch * plan.query[0] + head * plan.query[1] + t * plan.query[2]
        spread_query(query, start, plan.words, scratch.spread, r * stride * KEYS)
        mask = batch * plan.mask[0] + head * plan.mask[1] + t * plan.mask[2]
        scratch.masks[r] = mask
        limit = max(limit, used[mask])
        head, t = _next(head, t, plan.queries)
    return limit


@njit(nogil=True, error_model="numpy")
def _score(mask, plan, first, count, blocks, stride, rows, s):
    """Scores of all rows of the unit against a chunk of keys, four rows at a time."""
    row = 0
    while row + ROWS <= rows:
        score_four(
            *(s.planes, stride, first, count, s.spread, row),
            *(s.scores, blocks, plan.levels, mask, s.masks, s.peaks),
        )
        row += ROWS
    while row < rows:
        score_one(
            *(s.planes, stride, first, count, s.spread, row),
            *(s.scores, blocks, plan.levels, mask, s.masks, s.peaks),
        )
        row += 1


@njit(nogil=True, error_model="numpy")
def _select(need, used, plan, rows, blocks, guess, s):
    """The kept keys of every row of the unit; the last threshold, where the next search starts."""
    for row in range(rows):
        wanted, limit, place = need[s.masks[row]], used[s.masks[row]], row * blocks * KEYS
        s.kept[row] = 0
        if wanted == 0:
            continue
        guess, above = find_threshold(s.scores, place, limit, wanted, guess, s.peaks[row])
        first = row * plan.room
        s.kept[row] = select_keys(s.scores, place, limit, guess, wanted - above, s.indices, first)
    return guess


@njit(nogil=True, error_model="numpy")
def _average(value, start, output, table, plan, batch, group, row, rows, blocks, s):
    """The output of every row of the unit."""
    head, t = _place(plan, group, row)
    for r in range(rows):
        to = ((batch * plan.heads + head) * plan.queries + t) * plan.value_dim
        best = (batch * plan.table[0] + head * plan.table[1]) * plan.levels + s.peaks[r]
        head, t = _next(head, t, plan.queries)
        if s.kept[r] == 0:
            output[to : to + plan.value_dim] = 0
            continue
        average(
            *(value, start, plan.value[2], plan.value_dim, s.scores, r * blocks * KEYS),
            *(table, best, s.indices, r * plan.room, s.kept[r], output, to),
        )


@njit(nogil=True, error_model="numpy")
def _attend(query, key, value, output, mask, need, used, table, plan, kind, first, last):
    many = plan.heads // plan.groups * plan.queries
    tiles = (many + plan.rows - 1) // plan.rows
    blocks = (plan.keys + KEYS - 1) // KEYS
    stride = 8 * ((plan.words + 1) // 2)
    scratch = _allocate(plan, blocks, stride, kind)
    guess = plan.levels
    for unit in range(first, last):
        batch, group = unit // tiles // plan.groups, unit // tiles % plan.groups
        row = unit % tiles * plan.rows
        rows = min(plan.rows, many - row)
        limit = _prepare(query, used, plan, batch, group, row, rows, stride, scratch)
        scratch.peaks[:] = 0
        start = batch * plan.key[0] + group * plan.key[1]
        for chunk in range(0, limit, _CHUNK):
            count = min(_CHUNK, limit - chunk)
            split_keys(
                key,
                start,
                plan.key[2],
                plan.words,
                chunk,
                count,
                plan.keys,
                scratch.pairs,
                scratch.planes,
            )
            _score(mask, plan, chunk, count, blocks, stride, rows, scratch)
        guess = _select(need, used, plan, rows, blocks, guess, scratch)
        start = batch * plan.value[0] + group * plan.value[1]
        _average(value, start, output, table, plan, batch, group, row, rows, blocks, scratch)


@njit(nogil=True, error_model="numpy")
def _pack(source, shape, strides, target, first, last):
    heads, length, width = shape
    words = (width + 31) // 32
    batch, head, t = first // length // heads, first // length % heads, first % length
    for row in range(first, last):
        start = batch * strides[0] + head * strides[1] + t * strides[2]
        pack_row(source, start, width, target, row * words)
        head, t = _next(head, t, length)
        if head == heads:
            batch, head = batch + 1, 0


@njit(nogil=True, error_model="numpy")
def _pack_mask(source, keys, words, allowed, used):
    blocks = (keys + KEYS - 1) // KEYS
    for row in range(len(allowed)):
        total = last = 0
        for block in range(blocks):
            first = block * KEYS
            word = mask_word(source, row * keys + first, min(KEYS, keys - first))
            words[row * blocks + block] = word
            if word != np.uint64(0):
                total += bit_count(word)
                last = block + 1
        allowed[row], used[row] = total, last


def _entry_points(stamp):
    """The entry points; `stamp` becomes part of the key under which machine code is stored."""

    @njit(nogil=True, error_model="numpy", cache=True)
    def pack(source, shape, strides, target, first, last):
        """Signs of rows `first` .. `last` of a (B, H, L, D) array as int32 words; (H, L, D)."""
        if stamp:
            _pack(source, shape, strides, target, first, last)

    @njit(nogil=True, error_model="numpy", cache=True)
    def pack_mask(source, keys, words, allowed, used):
        """Rows of bytes as bits, the allowed keys of each, and its blocks up to the last one."""
        if stamp:
            _pack_mask(source, keys, words, allowed, used)

    @njit(nogil=True, error_model="numpy", cache=True)
    def attend(query, key, value, output, mask, need, used, table, plan, kind, first, last):
        """Attention of the units `first` .. `last`.

        Args:
            query, key: int32 words of the signs.
            value: float32, or 16-bit floats as in `cpu_vectors.add_scaled`.
            output: float32 (B, H, T, V), written.
            mask, need, used: bits of every row of the mask, keys to keep, blocks to look at.
            table: exp(-2 gain m) for m = 0 .. head_dim, float32, by batch and head.
            plan: the geometry.
            kind: any array of the type that scores have, uint8 or uint16.
        """
        if stamp:
            _attend(query, key, value, output, mask, need, used, table, plan, kind, first, last)

    return pack, pack_mask, attend


def _stamp():
    """A hash of all sources below an entry point: numba itself looks at the file of one alone."""
    files = sorted(Path(__file__).parent.glob("cpu_*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


pack, pack_mask, attend = _entry_points(_stamp())
