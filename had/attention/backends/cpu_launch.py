"""From tensors to the compiled kernels of the CPU backend: layouts, masks, tables, threads.

Importing this module imports numba; the backend does so when it is first used.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from had.attention.backends.base import PackedCall
from had.attention.backends.cpu_target import apply_target
from had.attention.bits import words_for
from had.attention.topn import TopN, keys_to_keep_of_part

apply_target()  # before numba compiles anything

from had.attention.backends import cpu_rows  # noqa: E402
from had.attention.backends.cpu_plan import Plan  # noqa: E402

_BLOCK = 64
_SCORES = 2**16  # bytes of scores that one unit of work holds, about what a fast cache has room for
_BYTE_LEVELS = 253  # head_dim up to which a score, and the level above it, fits a byte
_LANES = 16
_TASKS = 4  # a thread, so that the last to finish keeps nobody waiting for long
_SMALL = 2**16  # scores below which a second thread costs more than it brings

_SCORE_KINDS = np.empty(1, np.uint8), np.empty(1, np.uint16)
_VALUE_KINDS = {
    torch.float32: np.empty(1, np.float32),
    torch.bfloat16: np.empty(1, np.uint16),  # numba knows neither of the two
    torch.float16: np.empty(1, np.int16),
}


def pack(x: Tensor) -> Tensor:
    """`had.attention.bits.pack_signs` of (B, H, L, D) of any floating dtype, on the CPU."""
    x = x.float()
    x = x if x.stride(-1) == 1 else x.contiguous()
    rows = math.prod(x.shape[:3])
    words = torch.empty(*x.shape[:3], words_for(x.shape[3]), dtype=torch.int32)
    source, target, strides = x.data_ptr(), words.data_ptr(), x.stride()[:3]
    shape = tuple(x.shape[1:])

    def task(first: int, last: int) -> None:
        cpu_rows.pack(source, shape, strides, target, first, last)

    _spread(task, rows, cost=rows * x.shape[3] // 64)
    return words


def attend(call: PackedCall) -> Tensor:
    """Attention of a call on CPU tensors; (B, H, T, V) in value's dtype."""
    output, _ = _attend(call, 0)
    # Even a conversion to the same type costs as much as the attention of a short row.
    return output if output.dtype == call.value.dtype else output.to(call.value.dtype)


def attend_part(call: PackedCall, kept_elsewhere: Tensor | int) -> tuple[Tensor, Tensor]:
    """`had.attention.backends.base.Backend.attend_part` of a call on CPU tensors."""
    if call.mask is not None:  # equal rows are packed once, but may keep other numbers elsewhere
        call = replace(call, mask=call.mask.contiguous())
    output, sums = _attend(call, kept_elsewhere)
    total, best = sums.split(1, dim=-1)
    return output, call.gain * (2 * best - call.head_dim) + total.log()


def _attend(call: PackedCall, kept_elsewhere: Tensor | int) -> tuple[Tensor, Tensor]:
    """The output, float32, and of every row its sum of weights and the best key's equal bits."""
    batch, heads, queries, _ = call.query.shape
    keys, width = call.value.shape[2:]
    value = call.value if width >= _LANES else pad(call.value, (0, _LANES - width))
    value = value if value.stride(3) == 1 else value.contiguous()
    query, key = (x if x.stride(3) == 1 else x.contiguous() for x in (call.query, call.key))
    output, sums = (torch.empty(batch, heads, queries, size) for size in (value.shape[3], 2))
    if not output.numel() or not keys:
        return output[..., :width].zero_(), sums.zero_()
    bits, need, used, room = _bits(call.mask, keys, call.n, kept_elsewhere)
    table, table_strides = _table(call.gain, call.head_dim)
    strides = query.stride()[:3] + key.stride()[:3] + value.stride()[:3]
    strides += _mask_strides(call.mask) + table_strides
    plan, units = _plan(query.shape, value.shape, call.head_dim, room, strides)
    kinds = _VALUE_KINDS[value.dtype], _SCORE_KINDS[call.head_dim > _BYTE_LEVELS]
    tensors = query, key, value, output, sums, bits, need, used, table
    addresses = [x.data_ptr() for x in tensors]

    def task(first: int, last: int) -> None:
        cpu_rows.attend(*addresses, plan, *kinds, first, last)

    _spread(task, units, cost=batch * heads * queries * keys)
    return output if width >= _LANES else output[..., :width], sums


@lru_cache(maxsize=1024)
def _plan(
    query: torch.Size, value: torch.Size, head_dim: int, room: int, strides: tuple[int, ...]
) -> tuple[np.ndarray, int]:
    """A call's `Plan`, as an array, and its units of work."""
    batch, heads, queries, words = query
    groups, keys, value_dim = value[1:]
    together = heads // groups * queries
    rows = max(4, min(32, _SCORES // (-(-keys // _BLOCK) * _BLOCK) // 4 * 4))
    rows = min(rows, together)
    sizes = (heads, groups, queries, keys, words, value_dim, head_dim + 1, rows, room)
    plan = np.array(Plan(*sizes, *strides), np.int64)
    return plan, batch * groups * -(-together // rows)


def _bits(
    mask: Tensor | None, keys: int, n: TopN, elsewhere: Tensor | int
) -> tuple[Tensor, Tensor, Tensor, int]:
    """A mask's distinct rows as bits; keys to keep and blocks in use of each; most keys to keep."""
    if mask is None:
        return _all_keys(keys, n, int(elsewhere))
    distinct = _distinct(mask)
    if isinstance(elsewhere, Tensor):
        elsewhere = elsewhere.expand(distinct.shape[:3]).reshape(-1)
    return _pack_rows(distinct.expand(*distinct.shape[:3], keys).contiguous(), n, elsewhere)


@lru_cache(maxsize=256, typed=True)  # n = 1 is one key, n = 1.0 all of them
def _all_keys(keys: int, n: TopN, elsewhere: int) -> tuple[Tensor, Tensor, Tensor, int]:
    return _pack_rows(torch.ones(1, 1, 1, keys, dtype=torch.bool), n, elsewhere)


def _pack_rows(
    mask: Tensor, n: TopN, elsewhere: Tensor | int
) -> tuple[Tensor, Tensor, Tensor, int]:
    keys = mask.shape[3]
    rows = math.prod(mask.shape[:3])
    bits, allowed, used = (
        torch.empty(size, dtype=torch.int64) for size in (rows * -(-keys // _BLOCK), rows, rows)
    )
    results = (x.data_ptr() for x in (bits, allowed, used))
    cpu_rows.pack_mask(mask.data_ptr(), rows, keys, *results)
    need = keys_to_keep_of_part(n, allowed, elsewhere)
    return bits, need, used, int(need.max())


def _distinct(mask: Tensor) -> Tensor:
    """The mask in four dimensions, those that merely repeat it cut to one."""
    mask = mask.expand((1,) * (4 - mask.dim()) + mask.shape)
    for dim in range(3):
        mask = mask if mask.stride(dim) else mask.narrow(dim, 0, 1)
    return mask


def _mask_strides(mask: Tensor | None) -> tuple[int, int, int]:
    """Rows of the packed mask from one batch, head and query to the next."""
    if mask is None:
        return 0, 0, 0
    batch, heads, queries = _distinct(mask).shape[:3]
    return heads * queries * (batch > 1), queries * (heads > 1), int(queries > 1)


def _table(gain: Tensor | float, head_dim: int) -> tuple[Tensor, tuple[int, int]]:
    """exp(-2 gain m) for m = 0 .. head_dim bits fewer than the best key's; strides of its rows."""
    if not isinstance(gain, Tensor) or gain.numel() == 1:
        return _table_of(float(gain), head_dim), (0, 0)
    steps = torch.arange(head_dim + 1, dtype=torch.float32)
    gain = gain.detach().float()
    gain = gain.expand((1,) * (4 - gain.dim()) + gain.shape)
    batch, heads = gain.shape[:2]
    return torch.exp(-2.0 * gain * steps).contiguous(), (heads * (batch > 1), int(heads > 1))


@lru_cache(maxsize=1024)
def _table_of(gain: float, head_dim: int) -> Tensor:
    return torch.exp(-2.0 * gain * torch.arange(head_dim + 1, dtype=torch.float32))


def _spread(task: Callable[[int, int], None], units: int, cost: int) -> None:
    """Run task(first, last) over all units, on as many threads as PyTorch uses."""
    threads = min(torch.get_num_threads(), units) if cost > _SMALL else 1
    if threads <= 1:
        task(0, units)
        return
    tasks = min(units, _TASKS * threads)
    bounds = [units * i // tasks for i in range(tasks + 1)]
    list(_threads(threads).map(task, bounds[:-1], bounds[1:]))


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="had-cpu")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # threads do not survive a fork
