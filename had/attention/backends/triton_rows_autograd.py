"""The row kernels as one differentiable function, and what it keeps for backward.

Imported only where triton is known to be there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from had.attention.backends.triton_rows_launch import (
    RowSettings,
    launch_backward,
    launch_forward,
    rows_contiguous,
)


class TopNRows(torch.autograd.Function):
    """Top-N attention and the divergence from a teacher; nothing of size T x S is kept but bits.

    Forward stores the selection as one bit a key: 1/32 of a float map, and the backward kernels
    need not reproduce the forward scores bit for bit, whatever the shape of their tiles.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        gain: Tensor,
        mask: Tensor | None,
        bias: Tensor | None,
        teacher_query: Tensor | None,
        teacher_key: Tensor | None,
        teacher_bias: Tensor | None,
        settings: RowSettings,
    ) -> tuple[Tensor, Tensor | None]:
        """Output (B, H, T, V) and the divergence of every row (B, H, T), None without a teacher.

        Args:
            ctx: autograd's.
            query: units (B, H, T, D), float32.
            key: units (B, G, S, D), float32.
            value: (B, G, S, V).
            gain: (B, H), float32, contiguous.
            mask: uint8 (B, H, T, S), strides of 0 welcome.
            bias: (B, H, T, S), likewise.
            teacher_query: (B, H, T, TD).
            teacher_key: (B, TG, S, TD), the teacher query's dtype.
            teacher_bias: as bias.
            settings: the rest.
        """
        inputs = (query, key, value, gain, mask, bias, teacher_query, teacher_key, teacher_bias)
        output, bits, statistics, divergence = launch_forward(*inputs, settings)
        ctx.save_for_backward(*inputs, bits, statistics)
        ctx.settings = settings
        return output, divergence

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_grad: Tensor, divergence_grad: Tensor | None) -> tuple[Any, ...]:
        """Gradients of query, key, value and gain."""
        *inputs, bits, statistics = ctx.saved_tensors
        if inputs[6] is None:
            divergence_grad = None
        grads = launch_backward(
            *inputs,
            bits=bits,
            statistics=statistics,
            output_grad=rows_contiguous(output_grad),
            divergence_grad=None if divergence_grad is None else divergence_grad.contiguous(),
            settings=ctx.settings,
        )
        return *grads, None, None, None, None, None, None
