# mypy: allow-untyped-defs
"""The CPU backend's compiled entry points: packing, masks as bits, attention of a range of rows.

Tensors arrive as addresses, with explicit strides in elements: every layout of a tensor runs the
same machine code, which is kept on disk (by numba, in `__pycache__`, or in NUMBA_CACHE_DIR), and
no call counts references, which takes longer than scoring a block of keys. The caller keeps the
tensors alive.

A unit of work is up to `Plan.rows` query rows that share a key/value head. For a chunk of keys at a
time all rows are scored; then each row finds its threshold, collects its keys and averages their
values. No result depends on how units are spread over threads.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numba.np.unsafe.ndarray import to_fixed_tuple

from had.attention.backends.cpu_bits import bit_count
from had.attention.backends.cpu_emit import KEYS, pointer, start_of
from had.attention.backends.cpu_kernels import (
    SPARE,
    aligned,
    average,
    find_threshold,
    mask_word,
    pack_row,
    select_keys,
    weigh,
)
from had.attention.backends.cpu_scores import (
    ROWS,
    VECTOR_WORDS,
    repeat_query,
    score_four,
    score_one,
    score_words,
    split_keys,
    spread_query,
)

_CHUNK = 8  # blocks whose key bits stay in the first-level cache while all rows are scored
_FEW = 8  # rows up to which splitting keys into planes costs more than it brings


class Plan(NamedTuple):
    """The geometry of one call, in integers; strides in elements.

    Attributes:
        heads, groups, queries, keys, words, value_dim: H, G, T, S, W, V.
        levels: head_dim + 1, the score of a key equal to the query.
        rows: query rows of a unit.
        room: the most keys that any row keeps.
        query_batch .. value_row: strides of the words and of the values.
        mask_batch, mask_head, mask_row: strides in rows of the mask; 0 where rows share one.
        table_batch, table_head: strides in rows of the softmax table.
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
    query_batch: int
    query_head: int
    query_row: int
    key_batch: int
    key_head: int
    key_row: int
    value_batch: int
    value_head: int
    value_row: int
    mask_batch: int
    mask_head: int
    mask_row: int
    table_batch: int
    table_head: int


_PLAN_SIZE = len(Plan._fields)


class Tensors(NamedTuple):
    """Pointers to what `attend` is given."""

    query: Any
    key: Any
    value: Any
    output: Any
    mask: Any
    need: Any
    used: Any
    table: Any


class Unit(NamedTuple):
    """Query rows `row` .. `row + rows - 1` of those that share a key/value head."""

    batch: int
    group: int
    row: int
    rows: int


class Scratch(NamedTuple):
    """One thread's memory, as arrays or as pointers to them.

    Attributes:
        planes: key bits of a chunk, [block][byte][64].
        pairs: words of 64 keys, side by side.
        spread: query bits of a unit, [row][byte][64].
        repeated: words of each query, over and over; of no more than a few rows.
        scores: of a unit, [row][key].
        peaks, masks: the largest score of each row, and which row of the mask is its own.
        indices, weights: the keys that a row keeps, and what each counts.
    """

    planes: Any
    pairs: Any
    spread: Any
    repeated: Any
    scores: Any
    peaks: Any
    masks: Any
    indices: Any
    weights: Any


@njit(nogil=True, error_model="numpy")
def _allocate(plan, kind):
    stride = _plane_bytes(plan)
    spread = aligned(plan.rows * stride * KEYS)
    spread[:] = 0  # an odd number of words leaves planes that no query fills
    return Scratch(
        aligned(_CHUNK * stride * KEYS),
        aligned(16 * KEYS).view(np.int32),
        spread,
        aligned(4 * VECTOR_WORDS * min(plan.rows, _FEW)).view(np.int32),
        aligned(plan.rows * _blocks(plan) * KEYS * kind.itemsize).view(kind.dtype),
        np.empty(plan.rows, np.int64),
        np.empty(plan.rows, np.int64),
        aligned(4 * (plan.room + SPARE)).view(np.int32),
        aligned(4 * plan.room).view(np.float32),
    )


@njit(nogil=True, error_model="numpy")
def _pointers(s):
    return Scratch(
        *(start_of(s.planes), start_of(s.pairs), start_of(s.spread), start_of(s.repeated)),
        *(start_of(s.scores), start_of(s.peaks), start_of(s.masks), start_of(s.indices)),
        start_of(s.weights),
    )


@njit(nogil=True, error_model="numpy", forceinline=True)
def _blocks(plan):
    return (plan.keys + KEYS - 1) // KEYS


@njit(nogil=True, error_model="numpy", forceinline=True)
def _plane_bytes(plan):
    """Bytes of a key in planes, which hold pairs of words."""
    return 8 * ((plan.words + 1) // 2)


@njit(nogil=True, error_model="numpy", forceinline=True)
def _by_words(plan):
    """Whether `score_words` can and should score the rows of a unit."""
    adjacent = plan.key_row == plan.words and (plan.words == 2 or plan.words == 4)
    return adjacent and plan.rows <= _FEW


@njit(nogil=True, error_model="numpy")
def _unit(plan, number):
    many = plan.heads // plan.groups * plan.queries
    tiles = (many + plan.rows - 1) // plan.rows
    row = number % tiles * plan.rows
    batch, group = number // tiles // plan.groups, number // tiles % plan.groups
    return Unit(batch, group, row, min(plan.rows, many - row))


@njit(nogil=True, error_model="numpy")
def _place(plan, unit):
    """Query head and query of the unit's first row."""
    share = plan.heads // plan.groups
    return unit.group * share + unit.row // plan.queries, unit.row % plan.queries


@njit(nogil=True, error_model="numpy", forceinline=True)
def _next(head, t, queries):
    """The row after query t of a head, without a division, which takes longer than all this."""
    return (head, t + 1) if t + 1 < queries else (head + 1, 0)


@njit(nogil=True, error_model="numpy")
def _prepare(tensors, plan, unit, s):
    """Spread the unit's queries and find their masks; the blocks that any of them may see."""
    limit, (head, t), stride = 0, _place(plan, unit), _plane_bytes(plan)
    for r in range(unit.rows):
        start = unit.batch * plan.query_batch + head * plan.query_head + t * plan.query_row
        if _by_words(plan):
            repeat_query(tensors.query, start, plan.words, s.repeated, r * VECTOR_WORDS)
        else:
            spread_query(tensors.query, start, plan.words, s.spread, r * stride * KEYS)
        mask = unit.batch * plan.mask_batch + head * plan.mask_head + t * plan.mask_row
        s.masks[r], s.peaks[r] = mask, 0
        limit = max(limit, tensors.used[mask])
        head, t = _next(head, t, plan.queries)
    return limit


@njit(nogil=True, error_model="numpy")
def _score_by_words(tensors, plan, unit, first, count, s):
    """Scores of all rows of the unit against a chunk of keys."""
    start, blocks = unit.batch * plan.key_batch + unit.group * plan.key_head, _blocks(plan)
    for row in range(unit.rows):
        peak = score_words(
            *(tensors.key, start, plan.words, first, count, plan.keys, s.pairs),
            *(s.repeated, row * VECTOR_WORDS, s.scores, row * blocks * KEYS, plan.levels),
            *(tensors.mask, s.masks[row] * blocks),
        )
        s.peaks[row] = max(s.peaks[row], peak)


@njit(nogil=True, error_model="numpy")
def _score_by_planes(tensors, plan, unit, first, count, s):
    """As `_score_by_words`, four rows at a time."""
    start = unit.batch * plan.key_batch + unit.group * plan.key_head
    blocks, stride, row = _blocks(plan), _plane_bytes(plan), 0
    split_keys(
        *(tensors.key, start, plan.key_row, plan.words, first, count, plan.keys),
        *(s.pairs, s.planes),
    )
    while row + ROWS <= unit.rows:
        score_four(
            *(s.planes, stride, first, count, s.spread, row),
            *(s.scores, blocks, plan.levels, tensors.mask, s.masks, s.peaks),
        )
        row += ROWS
    while row < unit.rows:
        score_one(
            *(s.planes, stride, first, count, s.spread, row),
            *(s.scores, blocks, plan.levels, tensors.mask, s.masks, s.peaks),
        )
        row += 1


@njit(nogil=True, error_model="numpy")
def _finish(tensors, plan, unit, guess, s):
    """Outputs of the unit's rows from their scores; the last threshold, the next one's guess."""
    (head, t), lanes = _place(plan, unit), _blocks(plan) * KEYS
    for row in range(unit.rows):
        wanted, limit = tensors.need[s.masks[row]], tensors.used[s.masks[row]]
        entry = unit.batch * plan.table_batch + head * plan.table_head
        best, place = entry * plan.levels + s.peaks[row], row * lanes
        kept, share = 0, np.float32(0)
        if wanted > 0:
            guess, above = find_threshold(s.scores, place, limit, wanted, guess, s.peaks[row])
            kept = select_keys(s.scores, place, limit, guess, wanted - above, s.indices)
            total = weigh(s.scores, place, tensors.table, best, s.indices, s.weights, kept)
            share = np.float32(1) / total
        start = unit.batch * plan.value_batch + unit.group * plan.value_head
        average(
            *(tensors.value, start, plan.value_row, plan.value_dim, s.indices, s.weights, kept),
            *(share, tensors.output),
            ((unit.batch * plan.heads + head) * plan.queries + t) * plan.value_dim,
        )
        head, t = _next(head, t, plan.queries)
    return guess


@njit(nogil=True, error_model="numpy")
def _attend(tensors, plan, memory, first, last):
    s, guess = _pointers(memory), plan.levels
    for number in range(first, last):
        unit = _unit(plan, number)
        limit = _prepare(tensors, plan, unit, s)
        for chunk in range(0, limit, _CHUNK):
            count = min(_CHUNK, limit - chunk)
            if _by_words(plan):
                _score_by_words(tensors, plan, unit, chunk, count, s)
            else:
                _score_by_planes(tensors, plan, unit, chunk, count, s)
        guess = _finish(tensors, plan, unit, guess, s)


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
def _pack_mask(source, rows, keys, words, allowed, used):
    blocks = (keys + KEYS - 1) // KEYS
    for row in range(rows):
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
        """Signs of rows `first` .. `last` of a (B, H, L, D) tensor as int32 words; (H, L, D)."""
        if stamp:
            floats, words = pointer(source, np.float32), pointer(target, np.int32)
            _pack(floats, shape, strides, words, first, last)

    @njit(nogil=True, error_model="numpy", cache=True)
    def pack_mask(source, rows, keys, words, allowed, used):
        """Rows of bytes as bits, the allowed keys of each, and its blocks up to the last one."""
        if stamp:
            _pack_mask(
                *(pointer(source, np.uint8), rows, keys, pointer(words, np.uint64)),
                *(pointer(allowed, np.int64), pointer(used, np.int64)),
            )

    @njit(nogil=True, error_model="numpy", cache=True)
    def attend(
        query, key, value, output, mask, need, used, table, plan, values, scores, first, last
    ):
        """Attention of the units `first` .. `last`, from the addresses of contiguous rows.

        Args:
            query, key: int32 words of the signs.
            value: float32, or 16-bit floats as in `cpu_vectors.add_scaled`.
            output: float32 (B, H, T, V), written.
            mask, need, used: bits of every row of the mask, keys to keep, blocks to look at; 64
                bits wide.
            table: exp(-2 gain m) for m = 0 .. head_dim, float32, by batch and head.
            plan: a `Plan` as an int64 array.
            values, scores: any arrays of the types of a value, and of a score, uint8 or uint16.
        """
        if stamp:
            tensors = Tensors(
                *(pointer(query, np.int32), pointer(key, np.int32), pointer(value, values.dtype)),
                *(pointer(output, np.float32), pointer(mask, np.uint64), pointer(need, np.int64)),
                *(pointer(used, np.int64), pointer(table, np.float32)),
            )
            geometry = Plan(*to_fixed_tuple(plan, _PLAN_SIZE))
            _attend(tensors, geometry, _allocate(geometry, scores), first, last)

    return pack, pack_mask, attend


def _stamp():
    """A hash of all sources below an entry point: numba itself looks at the file of one alone."""
    files = sorted(Path(__file__).parent.glob("cpu_*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


pack, pack_mask, attend = _entry_points(_stamp())
