"""The kernel that adds a row's exact recent keys to what has been found among all others."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from had.attention.backends import cuda_compile
from had.attention.backends.base import ExactKeys

THREADS = 128
SHARED_BYTES = 4096  # a float for every key, and one for all others
_MOST_KEYS = SHARED_BYTES // 4 - 1
_FLOATS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
_WIDTHS = (64, 128)


class Arguments(ctypes.Structure):
    """The structure `Arguments` in `cuda_merge.cu`."""

    _fields_: ClassVar = [
        *((name, ctypes.c_void_p) for name in ("query", "key", "value", "mask")),
        *((name, ctypes.c_void_p) for name in ("far", "log_sums", "output")),
        *((f"query_{name}", ctypes.c_int64) for name in ("batch", "head")),
        *((f"key_{name}", ctypes.c_int64) for name in ("batch", "head", "token")),
        *((f"value_{name}", ctypes.c_int64) for name in ("batch", "head", "token")),
        ("mask_batch", ctypes.c_int64),
        ("gain", ctypes.c_float),
        ("keys", ctypes.c_int),
    ]


def supports(exact: ExactKeys) -> bool:
    """Whether the kernel takes these, of values that the kernels of `cuda_decode` take.

    Args:
        exact: of one query a sequence and head; they lie apart.
    """
    query, key = exact.query, exact.key
    value, allowed = exact.beside.value, exact.beside.allowed
    return (
        query.dtype == key.dtype
        and key.dtype in _FLOATS
        and key.shape[3] in _WIDTHS
        and key.shape[2] <= _MOST_KEYS
        and query.stride(3) == key.stride(3) == 1
        and value.stride(3) == 1
        and (allowed is None or allowed.stride(3) == 1 or allowed.shape[3] == 1)
    )


def merge(exact: ExactKeys, far: Tensor, log_sums: Tensor) -> Tensor:
    """`Backend.merge` of what the kernel takes."""
    value = exact.beside.value
    dtype = torch.float32 if value.element_size() == 1 else value.dtype
    output = torch.empty_like(far, dtype=dtype)
    a = arguments(exact, far, log_sums, output)
    device = far.get_device()
    with cuda_compile.on(device):
        launch = _launch(constants(exact), grid(far), device)
        launch(a, cuda_compile.current_stream(device))
    return output


def grid(far: Tensor) -> tuple[int, int, int]:
    """Thread blocks of a launch: one for each head of each sequence.

    Args:
        far: (B, H, 1, V).
    """
    batch, heads = far.shape[:2]
    return heads, batch, 1


def constants(exact: ExactKeys) -> cuda_compile.Constants:
    """Those that the kernel is compiled for."""
    value, allowed = exact.beside.value, exact.beside.allowed
    return (
        ("WIDTH", exact.key.shape[3]),
        ("KEY_FLOAT", _FLOATS[exact.key.dtype]),
        ("VALUE", value.shape[3]),
        ("VALUE_BYTES", value.element_size()),
        ("BFLOAT16", int(value.dtype == torch.bfloat16)),
        ("GROUP", exact.query.shape[1] // exact.key.shape[1]),
        ("MASKED", int(allowed is not None)),
    )


def arguments(exact: ExactKeys, far: Tensor, log_sums: Tensor, output: Tensor) -> Arguments:
    """Of a launch whose result goes to `output`, contiguous as `far` and `log_sums` are."""
    value, allowed = exact.beside.value, exact.beside.allowed
    a = Arguments(gain=exact.gain, keys=exact.key.shape[2])
    a.query, a.key, a.value = exact.query.data_ptr(), exact.key.data_ptr(), value.data_ptr()
    a.far, a.log_sums, a.output = far.data_ptr(), log_sums.data_ptr(), output.data_ptr()
    a.query_batch, a.query_head = exact.query.stride()[:2]
    a.key_batch, a.key_head, a.key_token = exact.key.stride()[:3]
    a.value_batch, a.value_head, a.value_token = value.stride()[:3]
    if allowed is not None:
        a.mask = allowed.data_ptr()
        a.mask_batch = allowed.stride(0) if allowed.shape[0] > 1 else 0
    return a


@lru_cache(maxsize=256)
def _launch(
    constants: cuda_compile.Constants, blocks: tuple[int, int, int], device: int
) -> cuda_compile.Launch:
    kernel = cuda_compile.load("cuda_merge.cu", "merge", constants, THREADS, SHARED_BYTES, device)
    return cuda_compile.Launch(kernel, blocks, overlapping=True)
