"""The selection kernel of `had.attention.select.topn_indices` on Hopper GPUs."""

from __future__ import annotations

import ctypes
from typing import ClassVar

import torch
from torch import Tensor

from had.attention.backends import cuda_compile

THREADS = 1024
SHARED_BYTES = 69_000
_MOST_SCORES = 2**24
_SCORES_PER_BLOCK = 8192  # fewer are not worth another block


class Arguments(ctypes.Structure):
    """The structure `Arguments` in `cuda_select.cu`."""

    _fields_: ClassVar = [
        ("scores", ctypes.c_void_p),
        ("indices", ctypes.c_void_p),
        ("row", ctypes.c_int64),
        ("count", ctypes.c_int),
        ("keep", ctypes.c_int),
    ]


def supports(scores: Tensor) -> bool:
    """Whether the kernel takes these scores, uint8 (rows, S)."""
    rows, count = scores.shape
    return cuda_compile.runs_on(scores.device) and rows < 2**16 and count <= _MOST_SCORES - 16


def topn_indices(scores: Tensor, n: int) -> Tensor:
    """See `had.attention.select.topn_indices`."""
    scores = aligned(scores)
    rows, count = scores.shape
    indices = torch.empty((rows, n), dtype=torch.int64, device=scores.device)
    if rows == 0:
        return indices
    device = scores.get_device()
    with cuda_compile.on(device):
        kernel = cuda_compile.load(
            *("cuda_select.cu", "topn_indices", ()), *(THREADS, SHARED_BYTES, device)
        )
        blocks = kernel.cluster_size(rows, most=-(-count // _SCORES_PER_BLOCK))
        arguments = Arguments(scores.data_ptr(), indices.data_ptr(), scores.stride(0), count, n)
        launch = cuda_compile.Launch(kernel, (blocks, rows, 1), cluster=blocks, overlapping=True)
        launch(arguments, cuda_compile.current_stream(device))
    return indices


def aligned(scores: Tensor) -> Tensor:
    """Rows on boundaries of 16 bytes, a multiple of 16 long: zeros at the end are kept last."""
    short = -scores.shape[1] % 16
    fits = scores.stride(1) == 1 and scores.stride(0) % 16 == 0 and scores.data_ptr() % 16 == 0
    return scores if fits and not short else torch.nn.functional.pad(scores, (0, short))
