# mypy: allow-untyped-defs
"""What the CPU backend's entry points work on: a call's geometry, tensors, memory and units."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from had.attention.backends.cpu_emit import KEYS, start_of
from had.attention.backends.cpu_kernels import SPARE, aligned
from had.attention.backends.cpu_scores import VECTOR_WORDS

CHUNK = 8
"""Blocks whose key bits stay in the first-level cache while all rows are scored."""

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


PLAN_SIZE = len(Plan._fields)


class Tensors(NamedTuple):
    """Pointers to what `attend` is given."""

    query: Any
    key: Any
    value: Any
    output: Any
    sums: Any
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
        pairs: up to four words of each of 64 keys, side by side.
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
def allocate(plan, kind):
    """Memory for one thread; `kind` is any array of the type that scores have."""
    stride = plane_bytes(plan)
    spread = aligned(plan.rows * stride * KEYS)
    spread[:] = 0  # an odd number of words leaves planes that no query fills
    return Scratch(
        aligned(CHUNK * stride * KEYS),
        aligned(16 * KEYS).view(np.int32),
        spread,
        aligned(4 * VECTOR_WORDS * min(plan.rows, _FEW)).view(np.int32),
        aligned(plan.rows * blocks_of(plan) * KEYS * kind.itemsize).view(kind.dtype),
        np.empty(plan.rows, np.int64),
        np.empty(plan.rows, np.int64),
        aligned(4 * (plan.room + SPARE)).view(np.int32),
        aligned(4 * plan.room).view(np.float32),
    )


@njit(nogil=True, error_model="numpy")
def pointers(s):
    """Pointers to the arrays of `allocate`, which the caller keeps alive."""
    return Scratch(
        *(start_of(s.planes), start_of(s.pairs), start_of(s.spread), start_of(s.repeated)),
        *(start_of(s.scores), start_of(s.peaks), start_of(s.masks), start_of(s.indices)),
        start_of(s.weights),
    )


@njit(nogil=True, error_model="numpy", forceinline=True)
def blocks_of(plan):
    """Blocks of 64 keys, the last one perhaps not full."""
    return (plan.keys + KEYS - 1) // KEYS


@njit(nogil=True, error_model="numpy", forceinline=True)
def plane_bytes(plan):
    """Bytes of a key in planes, which hold pairs of words."""
    return 8 * ((plan.words + 1) // 2)


@njit(nogil=True, error_model="numpy", forceinline=True)
def by_words(plan):
    """Whether `score_words` can and should score the rows of a unit."""
    adjacent = plan.key_row == plan.words and (plan.words == 2 or plan.words == 4)
    return adjacent and plan.rows <= _FEW


@njit(nogil=True, error_model="numpy")
def unit_at(plan, number):
    """The unit of that number: by batch, by key/value head, by row."""
    many = plan.heads // plan.groups * plan.queries
    tiles = (many + plan.rows - 1) // plan.rows
    row = number % tiles * plan.rows
    batch, group = number // tiles // plan.groups, number // tiles % plan.groups
    return Unit(batch, group, row, min(plan.rows, many - row))


@njit(nogil=True, error_model="numpy")
def first_row(plan, unit):
    """Query head and query of the unit's first row."""
    share = plan.heads // plan.groups
    return unit.group * share + unit.row // plan.queries, unit.row % plan.queries


@njit(nogil=True, error_model="numpy", forceinline=True)
def next_row(head, t, queries):
    """The row after query t of a head, without a division, which takes longer than all this."""
    return (head, t + 1) if t + 1 < queries else (head + 1, 0)
