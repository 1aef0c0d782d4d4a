"""Backend for training on signs at any length: Triton kernels that meet the keys block by block.

A row's N-th best key is found by counting how many keys reach a level, so neither scores nor
selection are stored: memory is O(T D). Keys out of a causal row's sight are not looked at. The
selection is the oracle's, lowest index first among equal scores; weights and their gradients are
rounded to the type of the values before they are multiplied, as in flash attention.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from had.attention.backends.base import AttentionCall, Backend
from had.attention.backends.eager import EagerBackend
from had.attention.backends.triton_rows import FLOATS, MAX_WIDTH, runs_interpreted, runs_on
from had.attention.divergence import AttentionTarget


class TritonLevelsBackend(Backend):
    """Attention on signs on CUDA devices, or interpreted where TRITON_INTERPRET=1."""

    name: ClassVar[str] = "triton_levels"
    takes_exact_keys: ClassVar[bool] = True

    def supports(self, call: AttentionCall) -> bool:
        device = call.query.device
        here = runs_on(device) if device.type == "cuda" else runs_interpreted(device)
        return here and _fits(call)

    def attend(self, call: AttentionCall) -> Tensor:
        from had.attention.backends.triton_levels_launch import Exact, TopNLevels
        from had.attention.backends.triton_rows_launch import rows_contiguous

        full: tuple[Tensor | None, Tensor | None] = (None, None)
        exact = Exact()
        if (given := call.exact) is not None:
            dtype = call.value.dtype
            full = (rows_contiguous(given.query.to(dtype)), rows_contiguous(given.key.to(dtype)))
            exact = Exact(given.recent, given.gain)
        return TopNLevels.apply(
            rows_contiguous(call.query),
            rows_contiguous(call.key),
            *full,
            rows_contiguous(call.value),
            _gain_per_row(call.gain, call.query),
            _mask_per_row(call),
            call.n,
            exact,
        )

    def distil(
        self, call: AttentionCall, target: AttentionTarget, real: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return self.attend(call), EagerBackend().divergence(call, target, real)


def _gain_per_row(gain: Tensor | float, query: Tensor) -> Tensor:
    """gain as float32 (B, H, T); autograd sums its gradient back to the given shape."""
    if not isinstance(gain, Tensor):
        return torch.full(query.shape[:3], gain, device=query.device, dtype=torch.float32)
    return gain.float().expand(*query.shape[:3], 1).squeeze(-1)


def _mask_per_row(call: AttentionCall) -> Tensor | None:
    """The mask as uint8 (B, M, T, S) views, M = 1 where all heads share it."""
    if call.mask is None:
        return None
    batch, heads, rows, _ = call.query.shape
    mask = call.mask[(None,) * (4 - call.mask.dim())]
    shared = 1 if mask.shape[1] == 1 else heads
    return mask.expand(batch, shared, rows, call.key.shape[2]).view(torch.uint8)


def _fits(call: AttentionCall) -> bool:
    """Whether units are signs without a bias, and shapes and dtypes are those of the kernels."""
    widths = (call.query.shape[-1], call.value.shape[-1])
    return (
        call.signs
        and call.bias is None
        and call.weights == "softmax"
        and call.value.dtype in FLOATS
        and min(call.query.shape[2], call.key.shape[2]) >= 1
        and max(widths) <= MAX_WIDTH
        and (call.mask is None or call.mask.dtype == torch.bool)
    )
