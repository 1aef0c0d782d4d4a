"""Backend for decoding over a long binary key cache: CUDA kernels for Hopper GPUs.

One-bit tensor-core products score the packed keys and list those that may be among the top N; the
exact top N are found from a histogram of the integer scores, and only their values are read.
`cuda_decode_fused.cu` does a small step, `cuda_decode_score.cu` and `cuda_decode_gather.cu` all
others. Nothing is copied to the host, so that calls can be captured in CUDA graphs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from had.attention.backends import cuda_compile, cuda_merge
from had.attention.backends.base import ExactKeys, PackedBackend, PackedCall
from had.attention.backends.cuda_decode_fused import OneKernel, fits, worthwhile
from had.attention.backends.cuda_decode_plan import TwoKernels
from had.attention.backends.cuda_decode_shape import MOST_ROWS, Part, Shape, processors_of

_MOST_KEYS = 2**24  # an entry of a list holds a key's index in 24 bits
_WIDTHS = (64, 128)
_VALUES = (torch.bfloat16, torch.float16, torch.float8_e4m3fn)


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
        with cuda_compile.on(call.query.get_device()):
            return plan_for(Shape.of(call)).run(call)

    def supports_part(self, call: PackedCall) -> bool:
        return self.supports_packed(call)

    def attend_part(self, call: PackedCall, kept_elsewhere: Tensor | int) -> tuple[Tensor, Tensor]:
        with cuda_compile.on(call.query.get_device()):
            part = Part.of(call, kept_elsewhere)
            return plan_for(Shape.of(call, part=True)).run(call, part), part.log_sums

    def merge(self, exact: ExactKeys, far: Tensor, log_sums: Tensor) -> Tensor:
        if cuda_merge.supports(exact):
            return cuda_merge.merge(exact, far, log_sums)
        return super().merge(exact, far, log_sums)


@lru_cache(maxsize=256)
def plan_for(shape: Shape) -> OneKernel | TwoKernels:
    """The launches for calls of a shape, on the current device."""
    processors = processors_of(shape.device)
    if fits(shape, processors) and worthwhile(shape, processors):
        return OneKernel(shape)
    return TwoKernels(shape)


def _shapes_fit(call: PackedCall) -> bool:
    batch, heads, tokens, _ = call.query.shape
    groups, keys = call.key.shape[1:3]
    return (
        call.bias is None
        and call.head_dim in _WIDTHS
        and call.value.shape[-1] in _WIDTHS
        and call.value.dtype in _VALUES
        and 1 <= keys < _MOST_KEYS
        and 1 <= heads // groups * tokens <= MOST_ROWS
        and 1 <= batch < 2**16
        and (call.mask is None or _one_row_for_all(call.mask, keys))
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
        and all(stride * value.element_size() % 16 == 0 for stride in value_strides[:3])
    )
