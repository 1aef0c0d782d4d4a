"""How a decoding step is laid out on the GPU: everything about its two launches but the addresses.

A plan serves all calls of one shape: in decoding, all layers of a model.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from had.attention.backends import cuda_compile
from had.attention.backends.base import PackedCall
from had.attention.functional import ScaledN, TopN, keys_to_keep

SCORE_THREADS = 256
GATHER_THREADS = 512
SCORE_SHARED_BYTES = 72_000
GATHER_SHARED_BYTES = 72_000
_WARPS = SCORE_THREADS // 32
_BINS = 132
_MOST_SPLITS = 64
_SPLIT_KEYS = 4096  # a split with fewer is worth it only where multiprocessors would be idle
_SAMPLED_KEYS = 8192  # fewer are all listed
_PICKS = 128  # values that a block has under way; fewer are not worth another block
_MOST_BLOCKS = 8  # of a cluster, on any device


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
        *((name, ctypes.c_void_p) for name in ("list", "listed", "histogram", "allowed")),
        *((f"query_{name}", ctypes.c_int64) for name in ("batch", "head", "token")),
        *((f"key_{name}", ctypes.c_int64) for name in ("batch", "head")),
        *((f"value_{name}", ctypes.c_int64) for name in ("batch", "head", "key")),
        ("mask_batch", ctypes.c_int64),
        *((f"gain_{name}", ctypes.c_int64) for name in ("batch", "head")),
        ("row_keys", ctypes.c_int64),
        ("share", ctypes.c_double),
        ("gain_number", ctypes.c_float),
        *((name, ctypes.c_int) for name in ("heads", "tokens", "keys", "keep")),
        *((name, ctypes.c_int) for name in ("splits", "range_keys", "sampled")),
    ]


class Plan:
    """The launches for calls of one shape."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        score = _load(shape, "score", "score_keys", SCORE_THREADS, SCORE_SHARED_BYTES)
        gather = _load(shape, "gather", "gather_values", GATHER_THREADS, GATHER_SHARED_BYTES)
        processors = torch.cuda.get_device_properties(shape.device).multi_processor_count
        splits = splits_of(shape, processors, score.resident_clusters(1))
        blocks = blocks_of(shape, processors)
        self._score = cuda_compile.Launch(score, (splits, shape.groups, shape.batch))
        grid = (blocks, shape.groups * shape.rows, shape.batch)
        self._gather = cuda_compile.Launch(gather, grid, cluster=blocks, overlapping=True)
        self._arguments = template(shape, splits)
        sizes = scratch_sizes(shape, self._arguments)
        self._offsets = [sum(sizes[:i]) for i in range(len(sizes))]
        self._scratch = sum(sizes)

    def run(self, call: PackedCall) -> Tensor:
        """The output of a call of the plan's shape."""
        shape = self.shape
        query, value = call.query.contiguous(), call.value
        size = (shape.batch, shape.heads, shape.tokens, shape.width)
        output = torch.empty(size, dtype=shape.output_dtype, device=query.device)
        scratch = torch.empty(self._scratch, dtype=torch.uint8, device=query.device)
        a = Arguments.from_buffer_copy(self._arguments)
        a.query, a.key, a.value = query.data_ptr(), call.key.data_ptr(), value.data_ptr()
        a.output = output.data_ptr()
        if call.mask is not None:
            a.mask = call.mask.data_ptr()
        if isinstance(call.gain, Tensor):
            a.gain = call.gain.data_ptr()
        base = scratch.data_ptr()
        a.list, a.listed, a.histogram, a.allowed = (base + offset for offset in self._offsets)
        stream = torch.cuda.current_stream().cuda_stream
        self._score(a, stream)
        self._gather(a, stream)
        return output


@lru_cache(maxsize=256)
def plan_for(shape: Shape) -> Plan:
    """The plan of a shape, on the current device."""
    return Plan(shape)


def splits_of(shape: Shape, processors: int, resident: int) -> int:
    """Parts of a key head's keys that a thread block each scores.

    As many as keep all multiprocessors busy, and more where splits stay long enough.

    Args:
        shape: of the call.
        processors: multiprocessors of the device.
        resident: blocks that it holds at a time.
    """
    groups = shape.batch * shape.groups
    splits = max(processors // groups, min(resident // groups, shape.keys // _SPLIT_KEYS))
    return max(1, min(splits, _MOST_SPLITS, math.ceil(shape.keys / (_WARPS * _block_keys(shape)))))


def blocks_of(shape: Shape, processors: int) -> int:
    """Thread blocks that share a query row's values."""
    worthwhile = math.ceil(shape.most_kept / _PICKS)
    return max(1, min(worthwhile, _MOST_BLOCKS, processors // shape.all_rows))


def template(shape: Shape, splits: int) -> Arguments:
    """The kernels' arguments but for the addresses."""
    a = Arguments()
    block = _block_keys(shape)
    a.splits = splits
    a.range_keys = math.ceil(shape.keys / (splits * _WARPS * block)) * block
    a.row_keys = math.ceil(shape.keys / 32) * 32
    a.query_token = shape.words
    a.query_head = shape.tokens * a.query_token
    a.query_batch = shape.heads * a.query_head
    a.key_batch, a.key_head = shape.key
    a.value_batch, a.value_head, a.value_key = shape.value
    a.mask_batch = shape.mask or 0
    if isinstance(shape.gain, tuple):
        a.gain_batch, a.gain_head = shape.gain
    else:
        a.gain_number = shape.gain
    a.share = shape.share
    a.keep = shape.least_kept
    a.heads, a.tokens, a.keys = shape.heads, shape.tokens, shape.keys
    a.sampled = int(shape.keys > _SAMPLED_KEYS)
    return a


def scratch_sizes(shape: Shape, a: Arguments) -> list[int]:
    """Bytes of the arrays `list`, `listed`, `histogram` and `allowed` of the kernels."""
    parts = shape.all_rows * a.splits
    counts = [shape.all_rows * a.row_keys, parts * _WARPS, parts * _BINS, parts]
    return [math.ceil(4 * count / 128) * 128 for count in counts]


def _block_keys(shape: Shape) -> int:
    """Keys that a warp scores at a time."""
    return 128 if shape.rows <= 4 else 64


def _load(
    shape: Shape, part: str, name: str, threads: int, shared_bytes: int
) -> cuda_compile.Kernel:
    source = f"cuda_decode_{part}.cu"
    return cuda_compile.load(source, name, shape.constants(), threads, shared_bytes, shape.device)


def _stride(x: Tensor, dim: int, size: int) -> int:
    """Of a dimension that is expanded to `size` if it is 1 long."""
    return x.stride(dim) if x.shape[dim] == size else 0


def _gain_strides(gain: Tensor, batch: int, heads: int) -> tuple[int, int]:
    gain = gain.expand(batch, heads, 1, 1)
    return gain.stride(0), gain.stride(1)
