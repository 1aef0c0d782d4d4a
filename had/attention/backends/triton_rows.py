"""Backend for training at encoder lengths: Triton kernels that keep all scores of a row on chip.

For up to 1024 keys. Forward and backward hold O(T D) and one bit a score instead of float maps; the
selection is the oracle's, lowest index first among equal scores, and gradients repeat bit for bit.
Dot products of signs are exact integers; other float32 products are good to about float32's own
rounding; weights and score gradients are not rounded to the type of narrower values.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from had.attention.backends.base import AttentionCall, Backend
from had.attention.backends.eager import EagerBackend
from had.attention.divergence import AttentionTarget, mean_over_real_rows

if TYPE_CHECKING:
    from had.attention.backends.triton_rows_launch import RowSettings

MAX_KEYS = 1024
_MAX_KEYS_OF_SIGNS = 512  # beyond, counting levels (`triton_levels`) is faster than ranking a row
MAX_WIDTH = 128
FLOATS = (torch.float32, torch.bfloat16, torch.float16)


class TritonRowsBackend(Backend):
    """Fused attention and distillation on CUDA devices, or interpreted where TRITON_INTERPRET=1."""

    name: ClassVar[str] = "triton"

    def supports(self, call: AttentionCall) -> bool:
        device = call.query.device
        here = runs_on(device) if device.type == "cuda" else runs_interpreted(device)
        return here and _fits(call)

    def attend(self, call: AttentionCall) -> Tensor:
        return _apply(call, None)[0]

    def distil(
        self, call: AttentionCall, target: AttentionTarget, real: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if target.stride > 1:
            return self.attend(call), EagerBackend().divergence(call, target, real)
        if not _comparable(call, target):
            return EagerBackend().distil(call, target, real)
        output, rows = _apply(call, target)
        assert rows is not None
        return output, mean_over_real_rows(rows, real)


def _apply(call: AttentionCall, target: AttentionTarget | None) -> tuple[Tensor, Tensor | None]:
    """Output (B, H, T, V), and the divergence of every row (B, H, T) if there is a target."""
    from had.attention.backends.triton_rows_autograd import TopNRows
    from had.attention.backends.triton_rows_launch import rows_contiguous

    shape = (*call.query.shape[:3], call.key.shape[2])
    teacher_query, teacher_key, teacher_bias = _teacher_tensors(target)
    return TopNRows.apply(
        rows_contiguous(call.query),
        rows_contiguous(call.key),
        rows_contiguous(call.value),
        _gain_per_head(call.gain, call.query),
        None if call.mask is None else call.mask.expand(shape).view(torch.uint8),
        None if call.bias is None else call.bias.expand(shape),
        teacher_query,
        teacher_key,
        None if teacher_bias is None else teacher_bias.expand(shape),
        _settings(call, target),
    )


def _settings(call: AttentionCall, target: AttentionTarget | None) -> RowSettings:
    from had.attention.backends.triton_rows_launch import RowSettings

    return RowSettings(call.n, call.signs, 1.0 if target is None else float(target.gain))


def _teacher_tensors(
    target: AttentionTarget | None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The target's query, key and bias, detached, of one dtype, rows contiguous."""
    from had.attention.backends.triton_rows_launch import rows_contiguous

    if target is None:
        return None, None, None
    dtype = torch.promote_types(target.query.dtype, target.key.dtype)
    query, key = (rows_contiguous(x.detach().to(dtype)) for x in (target.query, target.key))
    return query, key, None if target.bias is None else target.bias.detach()


def _gain_per_head(gain: Tensor | float, query: Tensor) -> Tensor:
    """gain as float32 (B, H), contiguous; autograd sums its gradient back to the given shape."""
    batch, heads = query.shape[:2]
    if not isinstance(gain, Tensor):
        return torch.full((batch, heads), gain, device=query.device, dtype=torch.float32)
    return gain.float().expand(batch, heads, 1, 1).reshape(batch, heads).contiguous()


@cache
def runs_on(device: torch.device) -> bool:
    """A CUDA device of compute capability 8.0 or more: the first with bfloat16 and TF32."""
    if torch.version.cuda is None or find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def runs_interpreted(device: torch.device) -> bool:
    """Whether Triton's interpreter runs the kernels on the CPU, as tests do."""
    wanted = device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    return wanted and find_spec("triton") is not None


def _fits(call: AttentionCall) -> bool:
    """Whether shapes and dtypes are those of the kernels, and no gradient of the bias is wanted."""
    widths = (call.query.shape[-1], call.value.shape[-1])
    units = call.query.dtype == call.key.dtype == torch.float32
    mask_fits = call.mask is None or call.mask.dtype == torch.bool
    bias_fits = call.bias is None or (call.bias.dtype in FLOATS and not call.bias.requires_grad)
    return (
        units
        and call.weights == "softmax"
        and call.value.dtype in FLOATS
        and 1 <= call.key.shape[2] <= (_MAX_KEYS_OF_SIGNS if call.signs else MAX_KEYS)
        and max(widths) <= MAX_WIDTH
        and mask_fits
        and bias_fits
    )


def _comparable(call: AttentionCall, target: AttentionTarget) -> bool:
    """Whether the kernels can form the teacher's rows beside the student's."""
    heads, keys = call.query.shape[1], call.key.shape[2]
    return (
        target.query.shape[:3] == call.query.shape[:3]
        and target.key.shape[2] == keys
        and heads % target.key.shape[1] == 0
        and target.query.shape[3] <= MAX_WIDTH
        and {target.query.dtype, target.key.dtype} <= set(FLOATS)
        and (target.bias is None or target.bias.dtype in FLOATS)
    )
