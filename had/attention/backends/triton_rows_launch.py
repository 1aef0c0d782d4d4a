"""Tile sizes and launches of the row kernels.

Imported only where triton is known to be there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import triton
from torch import Tensor

from had.attention.backends.triton_rows import MAX_KEYS
from had.attention.backends.triton_rows_backward import backward_keys, backward_queries
from had.attention.backends.triton_rows_forward import attend_rows
from had.attention.topn import TopN, keys_to_keep


@dataclass(frozen=True)
class RowSettings:
    """What a call fixes besides its tensors.

    Attributes:
        n: keys a row keeps, see `keys_to_keep`.
        signs: units are -1 and +1 only.
        teacher_gain: scale of the teacher's dot product.
    """

    n: TopN
    signs: bool
    teacher_gain: float = 1.0


def launch_forward(
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
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Launch the forward kernel: output, packed selection, row statistics, divergence."""
    batch, heads, rows, _ = query.shape
    keys, width = value.shape[2:]
    tiles = _forward_tiles(keys, settings.signs)
    chunk = min(64, (8192 if _heavy(value, settings) else 16384) // tiles.keys)
    # Adapters transpose the output to (B, T, H, V) next; laid out like that, it costs no copy.
    output = value.new_empty(batch, rows, heads, width).transpose(1, 2)
    bits = value.new_empty(batch, heads, rows, tiles.keys // 32, dtype=torch.int32)
    statistics = gain.new_empty(batch, heads, rows, 3)
    divergence = None if teacher_query is None else gain.new_empty(batch, heads, rows)
    programs = batch * heads * triton.cdiv(rows, tiles.rows)
    with torch.cuda.device_of(query):
        attend_rows[(programs,)](
            query,
            key,
            value,
            gain,
            _keep_counts(settings.n, query.device),
            mask,
            bias,
            teacher_query,
            teacher_key,
            settings.teacher_gain,
            teacher_bias,
            output,
            bits,
            statistics,
            divergence,
            query.stride(),
            key.stride(),
            value.stride(),
            output.stride(),
            strides_of(teacher_query),
            strides_of(teacher_key),
            strides_of(mask),
            strides_of(bias),
            strides_of(teacher_bias),
            rows,
            keys,
            **_constants(query, key, value, mask, teacher_query, teacher_key, settings),
            BLOCK_T=tiles.rows,
            BLOCK_S=tiles.keys,
            CHUNK=max(16, min(chunk, _block(query.shape[3]))),
            # More columns than rows: else the warps do not share the keys but repeat all scores.
            VALUE_CHUNK=max(32, min(chunk, _block(width))),
            # Products of D signs times keys, and an index: what the ranks of a row lie within.
            RANK_STEPS=((2 * query.shape[3] + 1) * tiles.keys).bit_length(),
            num_warps=tiles.warps,
            num_stages=tiles.stages,
        )
    return output, bits, statistics, divergence


def launch_backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gain: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    teacher_query: Tensor | None,
    teacher_key: Tensor | None,
    teacher_bias: Tensor | None,
    *,
    bits: Tensor,
    statistics: Tensor,
    output_grad: Tensor,
    divergence_grad: Tensor | None,
    settings: RowSettings,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Launch the backward kernels: gradients of query, key, value and gain (B, H)."""
    batch, heads, rows, _ = query.shape
    keys = key.shape[2]
    query_grad, key_grad, value_grad = map(torch.empty_like, (query, key, value))
    gain_grad, delta = (gain.new_empty(batch, heads, rows) for _ in range(2))
    tiles = _backward_tiles(
        keys,
        _block(query.shape[3]) + _block(value.shape[3]),
        _heavy(value, settings),
    )
    constants = _constants(query, key, value, mask, teacher_query, teacher_key, settings)
    constants |= {"WORDS": bits.shape[-1], "BLOCK_T": tiles.rows, "BLOCK_S": tiles.keys}
    for name, tensor in (("D", query), ("V", value), ("TD", teacher_query)):
        constants[f"BLOCK_{name}"] = 16 if tensor is None else _block(tensor.shape[3])
    tensors = (
        query,
        key,
        value,
        gain,
        mask,
        bias,
        teacher_query,
        teacher_key,
        settings.teacher_gain,
        teacher_bias,
        bits,
        statistics,
        output_grad,
        divergence_grad,
        query_grad,
        gain_grad,
        delta,
    )
    strides = [query.stride(), key.stride(), value.stride(), output_grad.stride()]
    strides += [query_grad.stride()]
    rest = [strides_of(x) for x in (teacher_query, teacher_key, mask, bias, teacher_bias)]
    launch = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    all_keys = keys <= tiles.keys
    with torch.cuda.device_of(query):
        if not all_keys:
            programs = batch * heads * triton.cdiv(rows, tiles.rows)
            backward_queries[(programs,)](
                *tensors, *strides, *rest, rows, keys, **constants, **launch
            )
        programs = batch * key.shape[1] * triton.cdiv(keys, tiles.keys)
        backward_keys[(programs,)](
            *tensors,
            key_grad,
            value_grad,
            *strides,
            key_grad.stride(),
            value_grad.stride(),
            *rest,
            rows,
            keys,
            ALL_KEYS=all_keys,
            **constants,
            **launch,
        )
    return query_grad, key_grad, value_grad, gain_grad.sum(-1)


@dataclass(frozen=True)
class _Tiles:
    """Tile of a program, and the warps and load stages that work on it."""

    rows: int
    keys: int
    warps: int
    stages: int = 1


def _forward_tiles(keys: int, signs: bool) -> _Tiles:
    """All keys, and as many rows as leave room on chip for three maps of scores.

    Up to 128 keys the 64 rows that the wide tensor cores want fit; above, 16 rows spread over
    enough warps. Float32 units stay at 16 rows too: with 64, Triton 3.6 on Hopper compiles TF32
    scores beside bfloat16 values to a kernel whose output is wrong.
    """
    block = _block_keys(keys)
    if block <= 128:
        return _Tiles(rows=64 if signs else 16, keys=block, warps=4)
    return _Tiles(rows=16, keys=block, warps=4 if block == 256 else 8)


def _backward_tiles(keys: int, width: int, heavy: bool) -> _Tiles:
    """As many keys as leave registers beside the sums for both key-side gradients.

    Args:
        keys: S.
        width: columns of both sums together.
        heavy: see `_heavy`.
    """
    if width <= (64 if heavy else 128):
        rows, most, warps = 64, 128, 8
    elif heavy:
        rows, most, warps = 32, 64 if width <= 128 else 32, 4
    else:
        rows, most, warps = 64, 64, 4
    block = min(most, _block_keys(keys))
    if not heavy and width <= 128 < keys <= 256:
        # All keys at once: one kernel for all gradients, which forms the scores once, not thrice.
        return _Tiles(rows=16, keys=256, warps=8)
    return _Tiles(rows=rows, keys=block, warps=warps if block == most else 4)


def _heavy(value: Tensor, settings: RowSettings) -> bool:
    """Whether operands are float32: three times the products, twice the memory on chip."""
    return not settings.signs or value.dtype == torch.float32


def _constants(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    teacher_query: Tensor | None,
    teacher_key: Tensor | None,
    settings: RowSettings,
) -> dict[str, Any]:
    """Compile-time arguments of all kernels: the geometry of the layer, and the arithmetic.

    Float32 products take three TF32 passes, about float32's own error, unless the user has allowed
    PyTorch plain TF32; narrower values are multiplied exactly, with float32 sums.
    """
    exact = torch.get_float32_matmul_precision() == "highest"
    return {
        "H": query.shape[1],
        "G": key.shape[1],
        "TG": 1 if teacher_key is None else teacher_key.shape[1],
        "D": query.shape[3],
        "V": value.shape[3],
        "TD": 1 if teacher_query is None else teacher_query.shape[3],
        "MASK_PER_ROW": mask is not None and mask.stride(2) != 0,
        "SIGNS": settings.signs,
        "PRECISION": "tf32x3" if exact else "tf32",
        "TERMS": 3 if value.dtype == torch.float32 else 2,
    }


@lru_cache(maxsize=64, typed=True)
def _keep_counts(n: TopN, device: torch.device) -> Tensor:
    """Keys that a row keeps for 0 .. MAX_KEYS allowed ones, int32: one rule for all backends."""
    with torch.inference_mode(False):
        allowed = torch.arange(MAX_KEYS + 1)
        return keys_to_keep(n, allowed).to(device=device, dtype=torch.int32)


def _block(size: int) -> int:
    """The power of two that a tile needs to hold `size` columns."""
    return max(16, triton.next_power_of_2(size))


def _block_keys(keys: int) -> int:
    """The same for keys, of which 32 share a word of bits."""
    return max(32, triton.next_power_of_2(keys))


def strides_of(x: Tensor | None) -> tuple[int, ...]:
    """What a kernel is told of a tensor; zeros where there is none."""
    return (0, 0, 0, 0) if x is None else x.stride()


def rows_contiguous(x: Tensor) -> Tensor:
    """x itself unless its last dimension is strided; any order of the others needs no copy."""
    return x if x.stride(-1) == 1 else x.contiguous()
