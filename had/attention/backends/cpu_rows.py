# mypy: allow-untyped-defs
"""The CPU backend's compiled entry points: packing, masks as bits, attention of a range of rows.

Tensors arrive as addresses, with explicit strides in elements: every layout of a tensor runs the
same machine code, which is kept on disk (by numba, in `__pycache__`, or in NUMBA_CACHE_DIR), and
no call counts references, which takes longer than scoring a block of keys. The caller keeps the
tensors alive.

A unit of work is up to `Plan.rows` query rows that share a key/value head. For a chunk of keys at a
time all rows are scored; then each row finds its threshold, collects its keys and averages their
values. No result depends on how units are spread over threads.

Numba makes machine code of every function together with all that it calls. What is called in one
place alone is therefore a part of its caller, instead of being compiled again on every level.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numba import njit
from numba.np.unsafe.ndarray import to_fixed_tuple

from had.attention.backends.cpu_bits import bit_count
from had.attention.backends.cpu_emit import KEYS, pointer
from had.attention.backends.cpu_kernels import (
    average,
    find_threshold,
    mask_word,
    pack_row,
    select_keys,
    weigh,
)
from had.attention.backends.cpu_plan import (
    CHUNK,
    PLAN_SIZE,
    Plan,
    Tensors,
    allocate,
    blocks_of,
    by_words,
    first_row,
    next_row,
    plane_bytes,
    pointers,
    unit_at,
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

_part = njit(nogil=True, error_model="numpy", inline="always")


@_part
def _prepare(tensors, plan, unit, s):
    """Spread the unit's queries and find their masks; the blocks that any of them may see."""
    limit, (head, t), stride = 0, first_row(plan, unit), plane_bytes(plan)
    for r in range(unit.rows):
        start = unit.batch * plan.query_batch + head * plan.query_head + t * plan.query_row
        if by_words(plan):
            repeat_query(tensors.query, start, plan.words, s.repeated, r * VECTOR_WORDS)
        else:
            spread_query(tensors.query, start, plan.words, s.spread, r * stride * KEYS)
        mask = unit.batch * plan.mask_batch + head * plan.mask_head + t * plan.mask_row
        s.masks[r], s.peaks[r] = mask, 0
        limit = max(limit, tensors.used[mask])
        head, t = next_row(head, t, plan.queries)
    return limit


@_part
def _score_by_words(tensors, plan, unit, first, count, s):
    """Scores of all rows of the unit against a chunk of keys."""
    start, blocks = unit.batch * plan.key_batch + unit.group * plan.key_head, blocks_of(plan)
    for row in range(unit.rows):
        peak = score_words(
            *(tensors.key, start, plan.words, first, count, plan.keys, s.pairs),
            *(s.repeated, row * VECTOR_WORDS, s.scores, row * blocks * KEYS, plan.levels),
            *(tensors.mask, s.masks[row] * blocks),
        )
        s.peaks[row] = max(s.peaks[row], peak)


@_part
def _score_by_planes(tensors, plan, unit, first, count, s):
    """As `_score_by_words`, four rows at a time."""
    start = unit.batch * plan.key_batch + unit.group * plan.key_head
    blocks, stride, row = blocks_of(plan), plane_bytes(plan), 0
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


@_part
def _finish(tensors, plan, unit, guess, s):
    """Outputs of the unit's rows from their scores; the last threshold, the next one's guess."""
    (head, t), lanes = first_row(plan, unit), blocks_of(plan) * KEYS
    for row in range(unit.rows):
        wanted, limit = tensors.need[s.masks[row]], tensors.used[s.masks[row]]
        entry = unit.batch * plan.table_batch + head * plan.table_head
        best, place = entry * plan.levels + s.peaks[row], row * lanes
        kept, share, total = 0, np.float32(0), np.float32(0)
        if wanted > 0:
            guess, above = find_threshold(s.scores, place, limit, wanted, guess, s.peaks[row])
            kept = select_keys(s.scores, place, limit, guess, wanted - above, s.indices)
            total = weigh(s.scores, place, tensors.table, best, s.indices, s.weights, kept)
            share = np.float32(1) / total
        to = (unit.batch * plan.heads + head) * plan.queries + t
        tensors.sums[2 * to], tensors.sums[2 * to + 1] = total, s.peaks[row] - 1
        start = unit.batch * plan.value_batch + unit.group * plan.value_head
        average(
            *(tensors.value, start, plan.value_row, plan.value_dim, s.indices, s.weights, kept),
            *(share, tensors.output, to * plan.value_dim),
        )
        head, t = next_row(head, t, plan.queries)
    return guess


@_part
def _attend(tensors, plan, memory, first, last):
    s, guess = pointers(memory), plan.levels
    for number in range(first, last):
        unit = unit_at(plan, number)
        limit = _prepare(tensors, plan, unit, s)
        for chunk in range(0, limit, CHUNK):
            count = min(CHUNK, limit - chunk)
            if by_words(plan):
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
        head, t = next_row(head, t, length)
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
        query,
        key,
        value,
        output,
        sums,
        mask,
        need,
        used,
        table,
        plan,
        values,
        scores,
        first,
        last,
    ):
        """Attention of the units `first` .. `last`, from the addresses of contiguous rows.

        Args:
            query, key: int32 words of the signs.
            value: float32, or 16-bit floats as in `cpu_vectors.add_scaled`.
            output: float32 (B, H, T, V), written.
            sums: float32 (B, H, T, 2), written: the sum of a row's weights, of which that of the
                best key is 1, and this one's equal bits.
            mask, need, used: bits of every row of the mask, keys to keep, blocks to look at; 64
                bits wide.
            table: exp(-2 gain m) for m = 0 .. head_dim, float32, by batch and head.
            plan: a `Plan` as an int64 array.
            values, scores: any arrays of the types of a value, and of a score, uint8 or uint16.
        """
        if stamp:
            tensors = Tensors(
                *(pointer(query, np.int32), pointer(key, np.int32), pointer(value, values.dtype)),
                *(pointer(output, np.float32), pointer(sums, np.float32)),
                *(pointer(mask, np.uint64), pointer(need, np.int64)),
                *(pointer(used, np.int64), pointer(table, np.float32)),
            )
            geometry = Plan(*to_fixed_tuple(plan, PLAN_SIZE))
            _attend(tensors, geometry, allocate(geometry, scores), first, last)

    return pack, pack_mask, attend


def _stamp():
    """A hash of all sources below an entry point: numba itself looks at the file of one alone."""
    files = sorted(Path(__file__).parent.glob("cpu_*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


pack, pack_mask, attend = _entry_points(_stamp())
