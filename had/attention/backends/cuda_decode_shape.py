"""What the kernels of a decoding step must know about a call: shapes, and their arguments."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from had.attention.backends import cuda_compile
from had.attention.backends.base import PackedCall
from had.attention.topn import ScaledN, TopN, keys_to_keep

MOST_ROWS = 8  # of queries, that share a key head


@dataclass(frozen=True)
class Shape:
    """What tells calls apart but for their contents: shapes, strides in elements, types.

    Attributes:
        device: index.
        batch: B of `PackedCall`; and so on, H, G, T and S.
        heads: query heads.
        groups: key heads.
        tokens: queries of a head.
        keys: keys of a head.
        words: 32-bit words of a key.
        width: of a value.
        dtype: of values.
        key: strides of the keys' sequences and heads.
        value: strides of the values' sequences, heads and keys.
        mask: stride of the sequences' masks, None for none.
        gain: strides of a gain tensor's sequences and heads, or the number.
        n: keys to keep.
    """

    device: int
    batch: int
    heads: int
    groups: int
    tokens: int
    keys: int
    words: int
    width: int
    dtype: torch.dtype
    key: tuple[int, ...]
    value: tuple[int, ...]
    mask: int | None
    gain: tuple[int, int] | float
    n: TopN

    @classmethod
    def of(cls, call: PackedCall) -> Shape:
        batch, heads, tokens, words = call.query.shape
        _, groups, keys, width = call.value.shape
        mask, gain = call.mask, call.gain
        return cls(
            call.query.get_device(),
            *(batch, heads, groups, tokens, keys, words, width, call.value.dtype),
            key=call.key.stride()[:2],
            value=call.value.stride()[:3],
            mask=None if mask is None else _stride(mask, 0, batch),
            gain=_gain_strides(gain, batch, heads) if isinstance(gain, Tensor) else gain,
            n=call.n,
        )

    @property
    def rows(self) -> int:
        """Query rows that share a key head."""
        return self.heads // self.groups * self.tokens

    @property
    def all_rows(self) -> int:
        return self.batch * self.groups * self.rows

    @property
    def output_dtype(self) -> torch.dtype:
        return torch.float32 if self.dtype.itemsize == 1 else self.dtype

    @property
    def share(self) -> float:
        """Of what the mask allows, which the kernels count; 0 where N is known."""
        if self.mask is None or isinstance(self.n, int):
            return 0.0
        return self.n.share if isinstance(self.n, ScaledN) else self.n

    @property
    def least_kept(self) -> int:
        """Keys that a row keeps whatever its share, if the mask allows as many."""
        if not self.share:
            return self.most_kept
        return self.n.minimum if isinstance(self.n, ScaledN) else 0

    @property
    def most_kept(self) -> int:
        """Keys that a row keeps, if a mask allows all."""
        return int(keys_to_keep(self.n, torch.tensor(self.keys)))

    @property
    def block_keys(self) -> int:
        """Keys that a warp scores at a time."""
        return 128 if self.rows <= 4 else 64

    def arguments(self, splits: int) -> Arguments:
        """Those of the kernels that the shape knows."""
        a = Arguments()
        a.splits = splits
        a.query_token = self.words
        a.query_head = self.tokens * a.query_token
        a.query_batch = self.heads * a.query_head
        a.key_batch, a.key_head = self.key
        a.value_batch, a.value_head, a.value_key = self.value
        a.mask_batch = self.mask or 0
        if isinstance(self.gain, tuple):
            a.gain_batch, a.gain_head = self.gain
        else:
            a.gain_number = self.gain
        a.share = self.share
        a.keep = self.least_kept
        a.heads, a.tokens, a.keys = self.heads, self.tokens, self.keys
        return a

    def empty_output(self) -> Tensor:
        size = (self.batch, self.heads, self.tokens, self.width)
        return torch.empty(size, dtype=self.output_dtype, device=f"cuda:{self.device}")

    def kernel(self, part: str, name: str, threads: int, shared_bytes: int) -> cuda_compile.Kernel:
        """The kernel in `cuda_decode_{part}.cu`, compiled for the shape."""
        source = f"cuda_decode_{part}.cu"
        return cuda_compile.load(source, name, self.constants(), threads, shared_bytes, self.device)

    def constants(self) -> cuda_compile.Constants:
        constants = {
            "WORDS": self.words,
            "VALUE": self.width,
            "VALUE_BYTES": self.dtype.itemsize,
            "BFLOAT16": int(self.dtype == torch.bfloat16),
            "ROWS": self.rows,
            "GROUP": self.heads // self.groups,
            "MASKED": int(self.mask is not None),
        }
        return tuple(constants.items())


class Arguments(ctypes.Structure):
    """The structure of the same name in `cuda_decode_layout.cuh`."""

    _fields_: ClassVar = [
        *((name, ctypes.c_void_p) for name in ("query", "key", "value", "mask", "gain", "output")),
        *((name, ctypes.c_void_p) for name in ("mail", "list", "listed", "histogram", "allowed")),
        *((f"query_{name}", ctypes.c_int64) for name in ("batch", "head", "token")),
        *((f"key_{name}", ctypes.c_int64) for name in ("batch", "head")),
        *((f"value_{name}", ctypes.c_int64) for name in ("batch", "head", "key")),
        ("mask_batch", ctypes.c_int64),
        *((f"gain_{name}", ctypes.c_int64) for name in ("batch", "head")),
        ("row_keys", ctypes.c_int64),
        ("share", ctypes.c_double),
        ("gain_number", ctypes.c_float),
        *((name, ctypes.c_int) for name in ("heads", "tokens", "keys", "keep")),
        *((name, ctypes.c_int) for name in ("splits", "split_keys", "range_keys", "sampled")),
    ]

    def point_to(self, call: PackedCall, query: Tensor, output: Tensor) -> None:
        """Fill in the addresses of a call's tensors. `query`: its queries, contiguous."""
        self.query, self.key, self.value = (x.data_ptr() for x in (query, call.key, call.value))
        self.output = output.data_ptr()
        if call.mask is not None:
            self.mask = call.mask.data_ptr()
        if isinstance(call.gain, Tensor):
            self.gain = call.gain.data_ptr()


def _stride(x: Tensor, dim: int, size: int) -> int:
    """Of a dimension that is expanded to `size` if it is 1 long."""
    return x.stride(dim) if x.shape[dim] == size else 0


def _gain_strides(gain: Tensor, batch: int, heads: int) -> tuple[int, int]:
    gain = gain.expand(batch, heads, 1, 1)
    return gain.stride(0), gain.stride(1)
