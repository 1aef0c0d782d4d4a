"""The kernel of `had.attention.bits.pack_signs` on Hopper GPUs."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from had.attention.backends import cuda_compile

THREADS = 128
_WARPS = THREADS // 32
_MOST_BLOCKS = 2**16  # along the grid's second and third side
CONSTANTS: dict[torch.dtype, cuda_compile.Constants] = {
    torch.bfloat16: (("BYTES", 2), ("HIGHEST", 0x7F80)),
    torch.float16: (("BYTES", 2), ("HIGHEST", 0x7C00)),
    torch.float32: (("BYTES", 4), ("HIGHEST", 0x7F800000)),
}


class Arguments(ctypes.Structure):
    """The structure `Arguments` in `cuda_pack.cu`."""

    _fields_: ClassVar = [
        ("x", ctypes.c_void_p),
        ("words", ctypes.c_void_p),
        *((f"x_{name}", ctypes.c_int64) for name in ("batch", "head", "token")),
        *((f"words_{name}", ctypes.c_int64) for name in ("batch", "head", "token")),
        ("tokens", ctypes.c_int),
        ("width", ctypes.c_int),
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


def pack(x: Tensor, words: Tensor) -> None:
    """Write the signs of x (B, H, T, D) into words, int32 (B, H, T, ceil(D / 32))."""
    with torch.cuda.device(x.device):
        launch = _launch(x.dtype, *x.shape[:3], device=x.get_device())
        launch(arguments(x, words), torch.cuda.current_stream().cuda_stream)


def arguments(x: Tensor, words: Tensor) -> Arguments:
    strides = (*x.stride()[:3], *words.stride()[:3])
    return Arguments(x.data_ptr(), words.data_ptr(), *strides, *x.shape[2:])


@lru_cache(maxsize=256)
def _launch(
    dtype: torch.dtype, batch: int, heads: int, tokens: int, device: int
) -> cuda_compile.Launch:
    kernel = cuda_compile.load("cuda_pack.cu", "pack_signs", CONSTANTS[dtype], THREADS, 0, device)
    return cuda_compile.Launch(kernel, (-(-tokens // _WARPS), heads, batch))
