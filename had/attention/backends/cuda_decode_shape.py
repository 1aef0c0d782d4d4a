"""What the kernels of a decoding step must know about a call: shapes, and their arguments."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from had.attention.backends import cuda_compile
from had.attention.backends.base import PackedCall
from had.attention.topn import share_and_number

MOST_ROWS = 8  # of queries, that share a key head
ROOM = 512  # keys; launches are planned for lengths rounded up to it


class Shape(NamedTuple):
    """What tells calls apart but for their contents and the very number of keys.

    A text grows by a token at a time, so that what is planned for a shape serves many steps.

    Attributes:
        device: index.
        batch: B of `PackedCall`; and so on, H, G and T.
        heads: query heads.
        groups: key heads.
        tokens: queries of a head.
        room: keys of a head, S, rounded up to a multiple of `ROOM`.
        words: 32-bit words of a key.
        width: of a value.
        dtype: of values.
        key: strides of the keys' sequences and heads, in elements.
        value: strides of the values' sequences, heads and keys.
        masked: whether there is a mask.
        gain: strides of a gain tensor's sequences and heads, or the number.
        share: of the allowed keys that a row keeps at least; see `share_and_number`.
        number: of them likewise.
        part: whether the keys are a part of every row's; see `Backend.attend_part`.
    """

    device: int
    batch: int
    heads: int
    groups: int
    tokens: int
    room: int
    words: int
    width: int
    dtype: torch.dtype
    key: tuple[int, ...]
    value: tuple[int, ...]
    masked: bool
    gain: tuple[int, int] | float
    share: float
    number: int
    part: bool = False

    @classmethod
    def of(cls, call: PackedCall, part: bool = False) -> Shape:
        batch, heads, tokens, words = call.query.shape
        _, groups, keys, width = call.value.shape
        gain = call.gain
        return cls(
            *(call.query.get_device(), batch, heads, groups, tokens),
            *(-(-keys // ROOM) * ROOM, words, width, call.value.dtype),
            *(call.key.stride()[:2], call.value.stride()[:3], call.mask is not None),
            _gain_strides(gain) if isinstance(gain, Tensor) else gain,
            *(*share_and_number(call.n), part),
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
        return torch.float32 if self.part or self.dtype.itemsize == 1 else self.dtype

    @property
    def most_kept(self) -> int:
        """Keys that a row keeps if all the room is full and allowed."""
        return min(self.room, max(self.number, math.ceil(self.share * self.room)))

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
        if isinstance(self.gain, tuple):
            a.gain_batch, a.gain_head = self.gain
        else:
            a.gain_number = self.gain
        a.share = self.share
        a.keep = self.number
        a.heads, a.tokens = self.heads, self.tokens
        return a

    def output_for(self, call: PackedCall) -> Tensor:
        """Room for the output of a call, of unknown contents."""
        size = (self.batch, self.heads, self.tokens, self.width)
        return call.value.new_empty(size, dtype=self.output_dtype)

    def kernel(self, file: str, name: str, threads: int, shared_bytes: int) -> cuda_compile.Kernel:
        """The kernel in `cuda_decode_{file}.cu`, compiled for the shape."""
        source = f"cuda_decode_{file}.cu"
        return cuda_compile.load(source, name, self.constants(), threads, shared_bytes, self.device)

    def constants(self) -> cuda_compile.Constants:
        constants = {
            "WORDS": self.words,
            "VALUE": self.width,
            "VALUE_BYTES": self.dtype.itemsize,
            "BFLOAT16": int(self.dtype == torch.bfloat16),
            "ROWS": self.rows,
            "GROUP": self.heads // self.groups,
            "MASKED": int(self.masked),
            "PART": int(self.part),
        }
        return tuple(constants.items())


@dataclass(frozen=True)
class Part:
    """What a call for a part of every row's keys has beside.

    Attributes:
        kept_elsewhere: keys that a row keeps beside these, a number or int64 (B or 1, 1, 1).
        log_sums: room for the logs of the sums, float32 (B, H, T, 1), contiguous.
    """

    kept_elsewhere: Tensor | int
    log_sums: Tensor

    @classmethod
    def of(cls, call: PackedCall, kept_elsewhere: Tensor | int) -> Part:
        if isinstance(kept_elsewhere, Tensor):
            kept_elsewhere = kept_elsewhere.long()
        size = (*call.query.shape[:3], 1)
        return cls(kept_elsewhere, call.value.new_empty(size, dtype=torch.float32))


class Arguments(ctypes.Structure):
    """The structure of the same name in `cuda_decode_layout.cuh`."""

    _fields_: ClassVar = [
        *((name, ctypes.c_void_p) for name in ("query", "key", "value", "mask", "gain", "output")),
        *((name, ctypes.c_void_p) for name in ("log_sums", "elsewhere")),
        *((name, ctypes.c_void_p) for name in ("mail", "list", "listed", "histogram", "allowed")),
        *((f"query_{name}", ctypes.c_int64) for name in ("batch", "head", "token")),
        *((f"key_{name}", ctypes.c_int64) for name in ("batch", "head")),
        *((f"value_{name}", ctypes.c_int64) for name in ("batch", "head", "key")),
        ("mask_batch", ctypes.c_int64),
        *((f"gain_{name}", ctypes.c_int64) for name in ("batch", "head")),
        ("elsewhere_batch", ctypes.c_int64),
        ("row_keys", ctypes.c_int64),
        ("share", ctypes.c_double),
        ("gain_number", ctypes.c_float),
        *((name, ctypes.c_int) for name in ("heads", "tokens", "keys", "keep")),
        ("elsewhere_number", ctypes.c_int),
        *((name, ctypes.c_int) for name in ("splits", "split_keys", "range_keys", "sampled")),
    ]

    def point_to(
        self, call: PackedCall, query: Tensor, output: Tensor, part: Part | None = None
    ) -> None:
        """Fill in what a call of the shape has of its own: addresses, and the number of keys.

        Args:
            call: of the shape.
            query: its queries, contiguous.
            output: for its output.
            part: what it has beside, if its shape is that of a part.
        """
        self.query, self.key = query.data_ptr(), call.key.data_ptr()
        self.value, self.output = call.value.data_ptr(), output.data_ptr()
        self.keys = call.key.shape[2]
        if call.mask is not None:
            self.mask = call.mask.data_ptr()
            self.mask_batch = call.mask.stride(0) if call.mask.shape[0] > 1 else 0
        if isinstance(call.gain, Tensor):
            self.gain = call.gain.data_ptr()
        if part is not None:
            self._point_to_part(part)

    def _point_to_part(self, part: Part) -> None:
        self.log_sums = part.log_sums.data_ptr()
        if isinstance(kept := part.kept_elsewhere, Tensor):
            self.elsewhere = kept.data_ptr()
            self.elsewhere_batch = kept.stride(0) if kept.shape[0] > 1 else 0
        else:
            self.elsewhere_number = kept


@cache
def processors_of(device: int) -> int:
    """Multiprocessors of a device."""
    return torch.cuda.get_device_properties(device).multi_processor_count


def _gain_strides(gain: Tensor) -> tuple[int, int]:
    """Of a gain's sequences and heads; 0 where they share one number."""
    sizes, strides = (1, 1, 1, 1, *gain.shape), (0, 0, 0, 0, *gain.stride())
    batch, head = (strides[i] if sizes[i] > 1 else 0 for i in (-4, -3))
    return batch, head
