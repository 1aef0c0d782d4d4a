"""Signs to bits, and new tokens into a cache, on Hopper GPUs: one kernel does both."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from had.attention.backends import cuda_compile

THREADS = 128
_WARPS = THREADS // 32
_WORD_BYTES = 4
_MOST_BLOCKS = 2**16  # along the grid's second and third side
CONSTANTS: dict[torch.dtype, cuda_compile.Constants] = {
    torch.bfloat16: (("BYTES", 2), ("HIGHEST", 0x7F80)),
    torch.float16: (("BYTES", 2), ("HIGHEST", 0x7C00)),
    torch.float32: (("BYTES", 4), ("HIGHEST", 0x7F800000)),
}


class Arguments(ctypes.Structure):
    """The structure `Arguments` in `cuda_pack.cu`."""

    _fields_: ClassVar = [
        *((name, ctypes.c_void_p) for name in ("x", "words", "value", "stored")),
        *(
            (f"{tensor}_{name}", ctypes.c_int64)
            for tensor in ("x", "words", "value", "stored")
            for name in ("batch", "head", "token")
        ),
        *((name, ctypes.c_int) for name in ("tokens", "width", "value_words")),
    ]


def supports(x: Tensor) -> bool:
    """Whether the kernel takes these queries or keys (B, H, T, D)."""
    return (
        x.is_cuda
        and cuda_compile.runs_on(x.device)
        and x.dtype in CONSTANTS
        and x.dim() == 4
        and x.stride(3) == 1
        and x.numel() > 0
        and max(x.shape[:2]) < _MOST_BLOCKS
    )


def copies(value: Tensor, stored: Tensor) -> bool:
    """Whether the kernel copies rows of `value` into `stored`, both (B, H, T or more, V)."""
    return value.dtype == stored.dtype and _in_words(value) and _in_words(stored)


def _in_words(x: Tensor) -> bool:
    """Whether rows are of whole 32-bit words, each contiguous."""
    whole = _whole(x.stride(), x.shape[3], x.element_size())
    return whole and x.data_ptr() % _WORD_BYTES == 0


@lru_cache(maxsize=1024)
def _whole(strides: tuple[int, ...], width: int, size: int) -> bool:
    whole = all(step * size % _WORD_BYTES == 0 for step in (*strides[:3], width))
    return whole and strides[3] == 1


def pack(x: Tensor, words: Tensor) -> None:
    """Write the signs of x (B, H, T, D) into words, int32 (B, H, T, ceil(D / 32))."""
    _run(x, arguments(x, words))


def append(key: Tensor, value: Tensor, words: Tensor, stored: Tensor, at: int) -> None:
    """`had.attention.cache_append.append` of what the kernel takes."""
    _run(key, arguments_of_append(key, value, words, stored, at))


def arguments(x: Tensor, words: Tensor) -> Arguments:
    """Of `pack`."""
    a = Arguments.from_buffer_copy(_template(x.shape, x.stride(), words.stride()))
    a.x, a.words = x.data_ptr(), words.data_ptr()
    return a


def arguments_of_append(
    key: Tensor, value: Tensor, words: Tensor, stored: Tensor, at: int
) -> Arguments:
    """Of `append`."""
    row, size = words.stride(), value.element_size()
    layout = (value.shape[3], size, value.stride(), stored.stride())
    a = Arguments.from_buffer_copy(_template(key.shape, key.stride(), row, layout))
    a.x, a.words = key.data_ptr(), words.data_ptr() + at * row[2] * _WORD_BYTES
    a.value, a.stored = value.data_ptr(), stored.data_ptr() + at * stored.stride(2) * size
    return a


@lru_cache(maxsize=1024)
def _template(
    shape: tuple[int, ...],
    x: tuple[int, ...],
    words: tuple[int, ...],
    values: tuple[int, int, tuple[int, ...], tuple[int, ...]] | None = None,
) -> Arguments:
    """The kernel's arguments but for the addresses: most tokens differ in nothing else.

    Args:
        shape: of the queries or keys.
        x: their strides.
        words: those of their signs.
        values: width, bytes of an element, and strides before and after, if any are copied.
    """
    a = Arguments(tokens=shape[2], width=shape[3])
    a.x_batch, a.x_head, a.x_token = x[:3]
    a.words_batch, a.words_head, a.words_token = words[:3]
    if values is not None:
        width, size, value, stored = values
        a.value_batch, a.value_head, a.value_token = (step * size for step in value[:3])
        a.stored_batch, a.stored_head, a.stored_token = (step * size for step in stored[:3])
        a.value_words = width * size // _WORD_BYTES
    return a


def _run(x: Tensor, a: Arguments) -> None:
    device = x.get_device()
    with cuda_compile.on(device):
        launch = _launch(x.dtype, *x.shape[:3], device)
        launch(a, cuda_compile.current_stream(device))


@lru_cache(maxsize=256)
def _launch(
    dtype: torch.dtype, batch: int, heads: int, tokens: int, device: int
) -> cuda_compile.Launch:
    kernel = cuda_compile.load("cuda_pack.cu", "pack_signs", CONSTANTS[dtype], THREADS, 0, device)
    return cuda_compile.Launch(kernel, (-(-tokens // _WARPS), heads, batch))
