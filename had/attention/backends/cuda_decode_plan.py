"""A decoding step in two kernels: everything about their launches but the addresses.

`cuda_decode_score.cu` and `cuda_decode_gather.cu`. The lists between them have room for any number
of keys, and blocks need not be resident together.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from had.attention.backends import cuda_compile
from had.attention.backends.base import PackedCall
from had.attention.backends.cuda_decode_shape import Arguments, Shape

SCORE_THREADS = 256
GATHER_THREADS = 512
SCORE_SHARED_BYTES = 72_000
GATHER_SHARED_BYTES = 72_000
_WARPS = SCORE_THREADS // 32
_BINS = 132
_MOST_SPLITS = 64
_SPLIT_KEYS = 4096  # a split with fewer is worth it only where multiprocessors would be idle
SAMPLED_KEYS = 8192  # fewer are all listed
_PICKS = 128  # values that a block has under way; fewer are not worth another block
_PARTS = 2  # of a long step
_LEAST_BYTES = 2**26  # of its keys: with fewer, it is not worth more launches
_BESIDE = 2  # blocks that score on a multiprocessor where one gathers


class TwoKernels:
    """The launches for calls of one shape, as for all layers of a model."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        score = shape.kernel("score", "score_keys", SCORE_THREADS, SCORE_SHARED_BYTES)
        gather = shape.kernel("gather", "gather_values", GATHER_THREADS, GATHER_SHARED_BYTES)
        processors = cuda_compile.processors_of(shape.device)
        self._part = part = part_of(shape)
        parts = shape.groups // part.groups
        resident = score.resident_clusters(1) if parts == 1 else _BESIDE * processors
        splits = splits_of(part, processors, resident)
        grid = (splits, part.groups, part.batch)
        self._score = cuda_compile.Launch(score, grid, overlapping=True)
        self._gathers = gather_launches(gather, part, parts, processors)
        self._arguments = template(shape, splits)
        sizes = scratch_sizes(part, self._arguments)
        self._offsets = [sum(sizes[:i]) for i in range(len(sizes))]
        self._scratch = sum(sizes)

    def run(self, call: PackedCall) -> Tensor:
        """The output of a call of this shape."""
        query, output = call.query.contiguous(), self.shape.empty_output()
        size = self._scratch * len(self._gathers)
        scratch = torch.empty(size, dtype=torch.uint8, device=query.device)
        stream = torch.cuda.current_stream().cuda_stream
        for i, gather in enumerate(self._gathers):
            a = Arguments.from_buffer_copy(self._arguments)
            a.point_to(call, query, output)
            a.skip(i * self._part.groups, self.shape)
            a.follows = int(i > 0)
            base = scratch.data_ptr() + i * self._scratch
            a.list, a.listed, a.histogram, a.allowed = (base + x for x in self._offsets)
            self._score(a, stream)
            gather(a, stream)
        return output


def gather_launches(
    kernel: cuda_compile.Kernel, part: Shape, parts: int, processors: int
) -> list[cuda_compile.Launch]:
    """One for each part: as many blocks as there is room for, but one on a multiprocessor where
    the next part's keys are scored beside them."""

    def launch(blocks: int) -> cuda_compile.Launch:
        grid = (blocks, part.groups * part.rows, part.batch)
        return cuda_compile.Launch(kernel, grid, cluster=blocks, overlapping=True)

    blocks = kernel.cluster_size(part.all_rows, most_blocks(part))
    beside = max(1, min(blocks, processors // part.all_rows))
    return [launch(beside)] * (parts - 1) + [launch(blocks)]


def part_of(shape: Shape) -> Shape:
    """The key heads of one part of a step: half of them if it is long, else all.

    Keys of a part are scored while values of the part before are gathered: the kernel that scores
    waits for memory all the time, the one that gathers also for itself.
    """
    key_bytes = shape.batch * shape.groups * shape.keys * shape.words * 4
    if shape.groups % _PARTS or key_bytes < _LEAST_BYTES:
        return shape
    return replace(shape, heads=shape.heads // _PARTS, groups=shape.groups // _PARTS)


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
    return max(1, min(splits, _MOST_SPLITS, math.ceil(shape.keys / (_WARPS * shape.block_keys))))


def most_blocks(shape: Shape) -> int:
    """Thread blocks that are worth their while for a query row's values."""
    return max(1, math.ceil(shape.most_kept / _PICKS))


def template(shape: Shape, splits: int) -> Arguments:
    """The kernels' arguments but for the addresses."""
    a = shape.arguments(splits)
    a.range_keys = math.ceil(shape.keys / (splits * _WARPS * shape.block_keys)) * shape.block_keys
    a.split_keys = _WARPS * a.range_keys
    a.row_keys = math.ceil(shape.keys / 32) * 32
    a.sampled = int(shape.keys > SAMPLED_KEYS)
    return a


def scratch_sizes(shape: Shape, a: Arguments) -> list[int]:
    """Bytes of the arrays `list`, `listed`, `histogram` and `allowed` of the kernels."""
    parts = shape.all_rows * a.splits
    counts = [shape.all_rows * a.row_keys, parts * _WARPS, parts * _BINS, parts]
    return [math.ceil(4 * count / 128) * 128 for count in counts]
