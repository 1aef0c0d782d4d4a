"""Backend for decoding over a long binary key cache: one CUDA kernel, for Hopper GPUs.

One-bit tensor-core products score the packed keys; the exact top N are found from a histogram of
the integer scores, and only their values are read. `cuda_decode.cu` tells how. Nothing but the
output is allocated and nothing is copied to the host, so that calls can be captured in CUDA graphs.
"""

from __future__ import annotations

import ctypes
from typing import ClassVar

import torch
from torch import Tensor

from had.attention.backends import cuda_compile
from had.attention.backends.base import PackedBackend, PackedCall
from had.attention.bits import words_for
from had.attention.functional import ScaledN, keys_to_keep

THREADS = 512
SHARED_BYTES = 220_000
_MOST_KEYS = 2**24  # an entry of a list holds a key's index in 24 bits
_MOST_ROWS = 8
_WIDTHS = (64, 128)
_KEYS_PER_BLOCK = 512  # fewer are not worth another block


class CudaDecodeBackend(PackedBackend):
    """Decoding from bits, for up to eight query rows a key head; nothing else."""

    name: ClassVar[str] = "cuda_decode"

    def supports_packed(self, call: PackedCall) -> bool:
        devices = {call.query.device, call.key.device, call.value.device}
        return (
            len(devices) == 1
            and cuda_compile.runs_on(call.query.device)
            and _shapes_fit(call)
            and _layout_fits(call)
        )

    def attend_packed(self, call: PackedCall) -> Tensor:
        batch, heads, tokens, _ = call.query.shape
        groups, keys, width = call.value.shape[1:]
        query = call.query.contiguous()
        output = call.value.new_empty((batch, heads, tokens, width))
        with torch.cuda.device(query.device):
            kernel = load_kernel(call)
            blocks = kernel.cluster_size(batch * groups, most=-(-keys // _KEYS_PER_BLOCK))
            kernel.launch((blocks, groups, batch), arguments(call, query, output))
        return output


def load_kernel(call: PackedCall) -> cuda_compile.Kernel:
    """The kernel for a call's widths, types and number of rows, on the current device."""
    shared_heads = call.query.shape[1] // call.key.shape[1]
    constants = {
        "WORDS": words_for(call.head_dim),
        "VALUE": call.value.shape[-1],
        "BFLOAT16": int(call.value.dtype == torch.bfloat16),
        "ROWS": shared_heads * call.query.shape[2],
        "GROUP": shared_heads,
        "MASKED": int(call.mask is not None),
    }
    return cuda_compile.load(
        "cuda_decode.cu",
        "hamming_decode",
        tuple(constants.items()),
        THREADS,
        SHARED_BYTES,
        torch.cuda.current_device(),
    )


class Arguments(ctypes.Structure):
    """The structure of the same name in `cuda_decode.cu`."""

    _fields_: ClassVar = [
        *((name, ctypes.c_void_p) for name in ("query", "key", "value", "mask", "gain", "output")),
        *((f"query_{name}", ctypes.c_int64) for name in ("batch", "head", "token")),
        *((f"key_{name}", ctypes.c_int64) for name in ("batch", "head")),
        *((f"value_{name}", ctypes.c_int64) for name in ("batch", "head", "key")),
        ("mask_batch", ctypes.c_int64),
        *((f"gain_{name}", ctypes.c_int64) for name in ("batch", "head")),
        ("fraction", ctypes.c_double),
        ("gain_number", ctypes.c_float),
        *((name, ctypes.c_int) for name in ("heads", "tokens", "keys", "keep")),
        ("stamps", ctypes.c_void_p),
    ]


def arguments(
    call: PackedCall, query: Tensor, output: Tensor, stamps: Tensor | None = None
) -> Arguments:
    """Pointers and strides for the kernel; they keep no tensor alive."""
    batch, heads, tokens, _ = query.shape
    keys = call.key.shape[2]
    a = Arguments(query.data_ptr(), call.key.data_ptr(), call.value.data_ptr())
    a.output = output.data_ptr()
    a.query_batch, a.query_head, a.query_token = query.stride()[:3]
    a.key_batch, a.key_head = call.key.stride()[:2]
    a.value_batch, a.value_head, a.value_key = call.value.stride()[:3]
    if call.mask is not None:
        mask = call.mask.expand(batch, 1, 1, keys)
        a.mask, a.mask_batch = mask.data_ptr(), mask.stride(0)
    if isinstance(call.gain, Tensor):
        gain = call.gain.expand(batch, heads, 1, 1)
        a.gain = gain.data_ptr()
        a.gain_batch, a.gain_head = gain.stride()[:2]
    else:
        a.gain_number = call.gain
    if call.mask is not None and isinstance(call.n, float):
        a.fraction = call.n  # of what the mask allows, which the kernel counts
    else:
        a.keep = int(keys_to_keep(call.n, torch.tensor(keys)))
    a.heads, a.tokens, a.keys = heads, tokens, keys
    a.stamps = None if stamps is None else stamps.data_ptr()
    return a


def _shapes_fit(call: PackedCall) -> bool:
    batch, heads, tokens, _ = call.query.shape
    groups, keys = call.key.shape[1:3]
    return (
        call.bias is None
        and call.head_dim in _WIDTHS
        and call.value.shape[-1] in _WIDTHS
        and call.value.dtype in (torch.bfloat16, torch.float16)
        and 1 <= keys < _MOST_KEYS
        and 1 <= heads // groups * tokens <= _MOST_ROWS
        and 1 <= batch < 2**16
        and (call.mask is None or _one_row_for_all(call.mask, keys))
        and (call.mask is None or not isinstance(call.n, ScaledN))
        and (not isinstance(call.gain, Tensor) or call.gain.dtype == torch.float32)
    )


def _one_row_for_all(mask: Tensor, keys: int) -> bool:
    """A padding mask (B or 1, 1, 1, S), whose bytes are contiguous."""
    return (
        mask.dtype == torch.bool
        and mask.dim() == 4
        and mask.shape[1:] == (1, 1, keys)
        and (keys == 1 or mask.stride(3) == 1)
    )


def _layout_fits(call: PackedCall) -> bool:
    """Keys of a head contiguous; every head's keys and every value on a boundary of 16 bytes."""
    key, value = call.key, call.value
    key_strides, value_strides = key.stride(), value.stride()
    words = key.shape[3]
    return (
        key_strides[3] == 1
        and key_strides[2] == words
        and value_strides[3] == 1
        and key.data_ptr() % 16 == 0
        and value.data_ptr() % 16 == 0
        and all(stride % 4 == 0 for stride in key_strides[:2])
        and all(stride % 8 == 0 for stride in value_strides[:3])
    )
