"""From tensors to the compiled kernels of the CPU backend: layouts, masks, tables, threads.

Importing this module imports numba, which takes a second; the backend does so when it is first used.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from had.attention.backends import cpu_rows
from had.attention.backends.base import PackedCall
from had.attention.bits import words_for
from had.attention.functional import keys_to_keep

_BLOCK = 64
_SCORES = 2**16  # bytes of scores that one unit of work holds, about what a fast cache has room for
_BYTE_LEVELS = 253  # head_dim up to which a score, and the level above it, fits a byte
_LANES = 16
_TASKS = 4  # a thread, so that the last to finish keeps nobody waiting for long
_SMALL = 2**16  # scores below which a second thread costs more than it brings

_AS_NUMBERS = {torch.bfloat16: torch.uint16, torch.float16: torch.int16, torch.bool: torch.uint8}


def pack(x: Tensor) -> Tensor:
    """`had.attention.bits.pack_signs` of float32 (B, H, L, D), on the CPU."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    rows = math.prod(x.shape[:3])
    words = torch.empty(*x.shape[:3], words_for(x.shape[3]), dtype=torch.int32)
    source, target, strides = _flat(x), _flat(words), x.stride()[:3]
    shape = tuple(x.shape[1:])

    def task(first: int, last: int) -> None:
        cpu_rows.pack(source, shape, strides, target, first, last)

    _spread(task, rows, cost=rows * x.shape[3] // 64)
    return words


def attend(call: PackedCall) -> Tensor:
    """Attention of a call on CPU tensors; (B, H, T, V) in value's dtype."""
    batch, heads, queries, words = call.query.shape
    groups, keys, width = call.value.shape[1:]
    value = call.value if width >= _LANES else pad(call.value, (0, _LANES - width))
    value = value if value.stride(-1) == 1 else value.contiguous()
    query, key = (x if x.stride(-1) == 1 else x.contiguous() for x in (call.query, call.key))
    output = torch.empty(batch, heads, queries, value.shape[3])
    if not output.numel() or not keys:
        return call.value.new_zeros(batch, heads, queries, width)
    mask, allowed, used, mask_strides = _mask(call.mask, keys)
    table, table_strides = _table(call.gain, call.head_dim)
    rows = max(4, min(32, _SCORES // (-(-keys // _BLOCK) * _BLOCK) // 4 * 4))
    plan = cpu_rows.Plan(
        *(heads, groups, queries, keys, words, value.shape[3], call.head_dim + 1, rows),
        *(query.stride()[:3], key.stride()[:3], value.stride()[:3], mask_strides, table_strides),
    )
    kind = np.empty(1, np.uint8 if call.head_dim <= _BYTE_LEVELS else np.uint16)
    need = keys_to_keep(call.n, allowed).numpy()
    arrays = (_flat(query), _flat(key), _flat(value), _flat(output))
    rest = (mask, need, used, _flat(table), plan, kind)

    def task(first: int, last: int) -> None:
        cpu_rows.attend(*arrays, *rest, first, last)

    units = batch * groups * -(-heads // groups * queries // rows)
    _spread(task, units, cost=batch * heads * queries * keys)
    return output[..., :width].to(call.value.dtype)


def _flat(x: Tensor) -> np.ndarray:
    """The memory that a tensor spans, from its first element on, as a contiguous array."""
    span = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    x = x.detach().as_strided((span,), (1,))
    return x.view(_AS_NUMBERS.get(x.dtype, x.dtype)).numpy()


def _mask(
    mask: Tensor | None, keys: int
) -> tuple[np.ndarray, Tensor, np.ndarray, tuple[int, int, int]]:
    """Bits of the distinct rows of a mask, allowed keys and blocks in use of each, their strides."""
    if mask is None:
        return *_all_keys(keys), (0, 0, 0)
    mask = mask.expand((1,) * (4 - mask.dim()) + mask.shape)
    for dim in range(3):
        if mask.stride(dim) == 0:
            mask = mask.narrow(dim, 0, 1)
    mask = mask.expand(*mask.shape[:3], keys).contiguous()
    batch, heads, queries = mask.shape[:3]
    strides = (
        heads * queries * (batch > 1),
        queries * (heads > 1),
        int(queries > 1),
    )
    return *_mask_bits(mask, keys), strides


def _mask_bits(mask: Tensor, keys: int) -> tuple[np.ndarray, Tensor, np.ndarray]:
    rows = math.prod(mask.shape[:3])
    bits = np.empty(rows * -(-keys // _BLOCK), np.uint64)
    allowed = torch.empty(rows, dtype=torch.int64)
    used = np.empty(rows, np.int64)
    cpu_rows.pack_mask(_flat(mask), keys, bits, allowed.numpy(), used)
    return bits, allowed, used


def _all_keys(keys: int) -> tuple[np.ndarray, Tensor, np.ndarray]:
    return _mask_bits(torch.ones(1, 1, 1, keys, dtype=torch.bool), keys)


def _table(gain: Tensor | float, head_dim: int) -> tuple[Tensor, tuple[int, int]]:
    """exp(-2 gain m) for m = 0 .. head_dim bits fewer than the best key's; strides of its rows."""
    steps = torch.arange(head_dim + 1, dtype=torch.float32)
    if not isinstance(gain, Tensor) or gain.numel() == 1:
        return torch.exp(-2.0 * float(gain) * steps), (0, 0)
    gain = gain.detach().float()
    gain = gain.expand((1,) * (4 - gain.dim()) + gain.shape)
    batch, heads = gain.shape[:2]
    return torch.exp(-2.0 * gain * steps).contiguous(), (heads * (batch > 1), int(heads > 1))


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


def compiled() -> dict[str, Any]:
    """The entry points by name: numba's dispatchers, which know what they have compiled."""
    return {name: getattr(cpu_rows, name) for name in ("pack", "pack_mask", "attend")}
