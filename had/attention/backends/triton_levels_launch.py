"""Launches of the level kernels, and the two of them as one differentiable function.

Imported only where triton is known to be there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from had.attention.backends.triton_levels_backward import level_key_grads, level_query_grads
from had.attention.backends.triton_levels_forward import attend_levels, visible_keys
from had.attention.backends.triton_rows_launch import rows_contiguous, strides_of
from had.attention.topn import TopN, keys_to_keep

_ROWS, _KEYS, _WARPS = 64, 64, 4  # a tile, and the warps that work on it


@dataclass(frozen=True)
class Exact:
    """How many keys of a row are scored in full precision, and by what factor.

    Attributes:
        recent: the last so many.
        gain: of their dot products.
    """

    recent: int = 0
    gain: float = 1.0


@dataclass(frozen=True)
class Visible:
    """Which keys the rows of a mask (B, M, T, S) may see, int32 (B, M, T) each.

    Attributes:
        first: the first of them.
        beyond: the one after the last.
        need: how many a row keeps by their signs, beside those that are exact.
    """

    first: Tensor
    beyond: Tensor
    need: Tensor

    @classmethod
    def of(cls, mask: Tensor | None, value: Tensor, rows: int, n: TopN, exact: Exact) -> Self:
        """Of a mask (B, M, T, S) uint8, or of none: all rows see all keys of value (B, G, S, V)."""
        batch, _, keys, _ = value.shape
        shape = (batch, 1 if mask is None else mask.shape[1], rows)
        first, beyond, number, always = value.new_empty((4, *shape), dtype=torch.int32)
        if mask is None:
            first.zero_()
            beyond.fill_(keys)
            number.fill_(keys)
            always.fill_(min(keys, exact.recent))
        else:
            with torch.cuda.device_of(mask):
                visible_keys[(first.numel(),)](
                    *(mask, first, beyond, number, always, mask.stride(), keys, *shape[1:]),
                    RECENT=exact.recent,
                    BLOCK_S=1024,
                )
        need = keys_to_keep(n, number) - always
        return cls(first, beyond, need.clamp_min(0).to(torch.int32))

    def strides(self, heads: int) -> tuple[int, int]:
        """Of sample and query head; heads that share a mask share what it says."""
        batch, head = self.first.stride()[:2]
        return batch, head if self.first.shape[1] == heads else 0


class TopNLevels(torch.autograd.Function):
    """Top-N attention on signs; what is kept for backward is of size T, not T x S."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        exact_query: Tensor | None,
        exact_key: Tensor | None,
        value: Tensor,
        gain: Tensor,
        mask: Tensor | None,
        n: TopN,
        exact: Exact,
    ) -> Tensor:
        """Output (B, H, T, V).

        Args:
            ctx: autograd's.
            query: signs (B, H, T, D), float32.
            key: signs (B, G, S, D), float32.
            exact_query: (B, H, T, D) of value's dtype; None where no key is exact.
            exact_key: (B, G, S, D), likewise.
            value: (B, G, S, V).
            gain: (B, H, T), float32, strides of 0 welcome.
            mask: uint8 (B, M, T, S), M = 1 or H, strides of 0 welcome.
            n: keys a row keeps.
            exact: which keys are.
        """
        batch, heads, rows, _ = query.shape
        keys, width = value.shape[2:]
        # Of value's type the tensor cores multiply signs exactly, and a walk over them is short.
        query, key = query.to(value.dtype), key.to(value.dtype)
        units = (query, key, exact_query, exact_key)
        seen = Visible.of(mask, value, rows, n, exact)
        output = value.new_empty(batch, rows, heads, width).transpose(1, 2)
        level, log_sum = (gain.new_empty(batch, heads, rows) for _ in range(2))
        cut = torch.empty_like(level, dtype=torch.int32)
        with torch.cuda.device_of(query):
            attend_levels[(batch * heads * triton.cdiv(rows, _ROWS),)](
                *(*units, exact.gain, value, gain, seen.need, seen.first, seen.beyond, mask),
                *(output, level, cut, log_sum),
                *(*map(strides_of, units), value.stride(), gain.stride()),
                *(seen.strides(heads), output.stride(), _mask_strides(mask, heads)),
                *(rows, keys),
                **_constants(query, key, value, exact),
                STEPS=_steps(query.shape[3] + 1),
            )
        ctx.save_for_backward(*units, value, gain, mask, output, level, cut, log_sum)
        ctx.seen, ctx.exact = seen, exact
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_grad: Tensor) -> tuple[Any, ...]:
        """Gradients of signs, exact queries and keys, value and gain."""
        *units, value, gain, mask, output, level, cut, log_sum = ctx.saved_tensors
        query, key, exact_query, exact_key = units
        batch, heads, rows, _ = query.shape
        groups, keys = key.shape[1:3]
        output_grad = rows_contiguous(output_grad.to(value.dtype))
        delta = (output.float() * output_grad.float()).sum(-1).contiguous()
        query_grad, key_grad = (torch.empty_like(x, dtype=torch.float32) for x in (query, key))
        exact_grads = [None if x is None else torch.empty_like(x) for x in (exact_query, exact_key)]
        value_grad, gain_grad = torch.empty_like(value), torch.empty_like(level)
        inputs = (
            *(*units, ctx.exact.gain, value, gain, ctx.seen.first, ctx.seen.beyond, mask),
            *(level, cut, log_sum, delta, output_grad),
        )
        strides = (
            *(*map(strides_of, units), value.stride(), gain.stride()),
            *(ctx.seen.strides(heads), output_grad.stride()),
        )
        rest = (_mask_strides(mask, heads), rows, keys)
        constants = _constants(query, key, value, ctx.exact)
        with torch.cuda.device_of(query):
            grads = (query_grad, exact_grads[0])
            level_query_grads[(batch * heads * triton.cdiv(rows, _ROWS),)](
                *(*inputs, *grads, gain_grad, *strides, *map(strides_of, grads), *rest), **constants
            )
            grads = (key_grad, exact_grads[1])
            level_key_grads[(batch * groups * triton.cdiv(keys, _KEYS),)](
                *(*inputs, *grads, value_grad, *strides),
                *(*map(strides_of, grads), value_grad.stride(), *rest),
                **constants,
            )
        return query_grad, key_grad, *exact_grads, value_grad, gain_grad, None, None, None


def _constants(query: Tensor, key: Tensor, value: Tensor, exact: Exact) -> dict[str, int]:
    """What all kernels are compiled for: the geometry of the layer, the tiles and their loads."""
    width, value_width = query.shape[3], value.shape[3]
    row_bytes = max(width, value_width) * value.element_size()
    return {
        "H": query.shape[1],
        "G": key.shape[1],
        "D": width,
        "V": value_width,
        "BLOCK_T": _ROWS,
        "BLOCK_S": _KEYS,
        "BLOCK_D": max(16, triton.next_power_of_2(width)),
        "BLOCK_V": max(16, triton.next_power_of_2(value_width)),
        "RECENT": exact.recent,
        "num_warps": _WARPS,
        "num_stages": max(1, min(3, 512 // row_bytes)),  # tiles in flight must fit on chip
    }


def _steps(levels: int) -> int:
    """Walks after which a search in thirds has one of so many levels left."""
    steps = 0
    while levels > 1:
        levels, steps = -(-levels // 3), steps + 1
    return steps


def _mask_strides(mask: Tensor | None, heads: int) -> tuple[int, ...]:
    """Of a mask as the kernels read it, one for every head."""
    if mask is None:
        return (0, 0, 0, 0)
    batch, head, row, key = mask.stride()
    return batch, head if mask.shape[1] == heads else 0, row, key
