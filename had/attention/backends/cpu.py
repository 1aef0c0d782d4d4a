"""Backend for inference on CPUs: signs as bits, selection by counting, a sparse average.

Kernels are compiled on first use (`cpu_rows`), for the instruction set of the machine, and kept
on disk. They select the oracle's keys and differ from it in the rounding of float32 alone.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from had.attention.backends.base import AttentionCall, Backend, PackedCall
from had.attention.backends.eager import EagerBackend
from had.attention.divergence import AttentionTarget

log = logging.getLogger(__name__)

_VALUES = (torch.float32, torch.bfloat16, torch.float16)
_MAX_HEAD_DIM = 2**16 - 3  # a score has two bytes


class CpuBackend(Backend):
    """Top-N attention on signs, on the CPU, without gradients."""

    name: ClassVar[str] = "cpu"

    def supports(self, call: AttentionCall) -> bool:
        units = call.query.is_floating_point() and call.key.is_floating_point()
        softmax = call.weights == "softmax"
        return call.signs and softmax and units and _fits(call, call.query.shape[3])

    def attend(self, call: AttentionCall) -> Tensor:
        from had.attention.backends import cpu_launch

        query, key = (cpu_launch.pack(x) for x in (call.query, call.key))
        rest = (call.value, call.query.shape[3], call.n, call.gain, call.mask)
        return cpu_launch.attend(PackedCall(query, key, *rest))

    def supports_packed(self, call: PackedCall) -> bool:
        words = call.query.dtype == call.key.dtype == torch.int32
        return words and _fits(call, call.head_dim)

    def attend_packed(self, call: PackedCall) -> Tensor:
        from had.attention.backends import cpu_launch

        return cpu_launch.attend(call)

    def supports_part(self, call: PackedCall) -> bool:
        return self.supports_packed(call)

    def attend_part(self, call: PackedCall, kept_elsewhere: Tensor | int) -> tuple[Tensor, Tensor]:
        from had.attention.backends import cpu_launch

        return cpu_launch.attend_part(call, kept_elsewhere)

    def distil(
        self, call: AttentionCall, target: AttentionTarget, real: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return EagerBackend().distil(call, target, real)


def _fits(call: AttentionCall | PackedCall, head_dim: int) -> bool:
    """Whether tensors, shapes and dtypes are those of the kernels, and these can be compiled."""
    given = (call.query, call.key, call.value, call.gain, call.mask)
    tensors = [x for x in given if isinstance(x, Tensor)]
    return (
        all(x.device.type == "cpu" for x in tensors)
        and call.bias is None
        and call.value.dtype in _VALUES
        and (call.mask is None or call.mask.dtype == torch.bool)
        and 1 <= head_dim <= _MAX_HEAD_DIM
        and min(call.value.shape) > 0
        and not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors))
        and not torch.compiler.is_compiling()
        and _ready()
    )


@cache
def _ready() -> bool:
    """Whether the kernels can be compiled here, or loaded; tried once, on a call of one key."""
    try:
        from had.attention.backends import cpu_launch

        words = torch.zeros(1, 1, 1, 1, dtype=torch.int32)
        cpu_launch.attend(PackedCall(words, words, torch.zeros(1, 1, 1, 16), 1, 1, 1.0))
    except Exception as error:  # numba is missing, too old, or finds no room for its machine code
        log.warning(
            "no compiled attention on this CPU, the slower eager backend instead: %s", error
        )
        return False
    return True
