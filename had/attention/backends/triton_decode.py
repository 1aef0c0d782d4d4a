"""Backend for decoding from bits on GPUs without the CUDA kernel of `cuda_decode`.

Three steps: popcounts give every key's score as a byte, `topn_indices` selects, and the values of
the selected keys are added up. One byte a score and one index a selected key pass through memory.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from had.attention.backends.base import PackedBackend, PackedCall
from had.attention.backends.triton_rows import runs_interpreted, runs_on

_MOST_MATCHES = 254  # a byte holds the equal bits plus one; zero marks a forbidden key
_MOST_WIDTH = 256
_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


class TritonDecodeBackend(PackedBackend):
    """Decoding from bits on CUDA devices, or interpreted where TRITON_INTERPRET=1."""

    name: ClassVar[str] = "triton_decode"

    def supports_packed(self, call: PackedCall) -> bool:
        device = call.query.device
        here = runs_on(device) if device.type == "cuda" else runs_interpreted(device)
        return here and _fits(call)

    def attend_packed(self, call: PackedCall) -> Tensor:
        from had.attention.backends.triton_decode_kernels import attend

        return attend(call)

    def supports_part(self, call: PackedCall) -> bool:
        # With a mask, rows keep different numbers of keys elsewhere, and so here.
        return call.mask is None and self.supports_packed(call)

    def attend_part(self, call: PackedCall, kept_elsewhere: Tensor | int) -> tuple[Tensor, Tensor]:
        from had.attention.backends.triton_decode_kernels import attend_part

        return attend_part(call, int(kept_elsewhere))


def _fits(call: PackedCall) -> bool:
    """Whether shapes and dtypes are those of the kernels.

    A fraction of the allowed keys selects a different number in every row, which `topn_indices`
    does not do.
    """
    width = call.value.shape[-1]
    return (
        call.bias is None
        and call.head_dim <= _MOST_MATCHES
        and width <= _MOST_WIDTH
        and call.value.dtype in _FLOATS
        and call.value.stride(3) == 1
        and call.key.shape[2] >= 1
        and (call.mask is None or (call.mask.dtype == torch.bool and isinstance(call.n, int)))
    )
