"""A decoding step in two kernels: everything about their launches but the addresses.

`cuda_decode_score.cu` and `cuda_decode_gather.cu`. The lists between them have room for any number
of keys, and blocks need not be resident together.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from had.attention.backends import cuda_compile
from had.attention.backends.base import PackedCall
from had.attention.backends.cuda_decode_shape import Arguments, Part, Shape, processors_of

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
_MOST_BLOCKS = 8  # of a cluster, on any device


class TwoKernels:
    """The launches for calls of one shape, as for all layers of a model."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        score = shape.kernel("score", "score_keys", SCORE_THREADS, SCORE_SHARED_BYTES)
        gather = shape.kernel("gather", "gather_values", GATHER_THREADS, GATHER_SHARED_BYTES)
        splits = splits_of(shape, processors_of(shape.device), score.resident_clusters(1))
        blocks = gather.cluster_size(shape.all_rows, most_blocks(shape))
        grid = (splits, shape.groups, shape.batch)
        self._score = cuda_compile.Launch(score, grid, overlapping=True)
        grid = (blocks, shape.groups * shape.rows, shape.batch)
        self._gather = cuda_compile.Launch(gather, grid, cluster=blocks, overlapping=True)
        self._arguments = template(shape, splits)
        sizes = scratch_sizes(shape, self._arguments)
        self._offsets = [sum(sizes[:i]) for i in range(len(sizes))]
        self._scratch = sum(sizes)

    def run(self, call: PackedCall, part: Part | None = None) -> Tensor:
        """The output of a call of this shape; the logs of a part's sums are left in it."""
        query, output = call.query.contiguous(), self.shape.output_for(call)
        scratch = torch.empty(self._scratch, dtype=torch.uint8, device=query.device)
        a = Arguments.from_buffer_copy(self._arguments)
        a.point_to(call, query, output, part)
        base = scratch.data_ptr()
        a.list, a.listed, a.histogram, a.allowed = (base + offset for offset in self._offsets)
        stream = cuda_compile.current_stream(self.shape.device)
        self._score(a, stream)
        self._gather(a, stream)
        return output


def splits_of(shape: Shape, processors: int, resident: int) -> int:
    """Parts of a key head's keys that a thread block each scores.

    As many as keep all multiprocessors busy, and more where splits stay long enough.

    Args:
        shape: of the call.
        processors: multiprocessors of the device.
        resident: blocks that it holds at a time.
    """
    groups = shape.batch * shape.groups
    splits = max(processors // groups, min(resident // groups, shape.room // _SPLIT_KEYS))
    return max(1, min(splits, _MOST_SPLITS, math.ceil(shape.room / (_WARPS * shape.block_keys))))


def most_blocks(shape: Shape) -> int:
    """Thread blocks that are worth their while for a query row's values."""
    return max(1, min(math.ceil(shape.most_kept / _PICKS), _MOST_BLOCKS))


def template(shape: Shape, splits: int) -> Arguments:
    """The kernels' arguments but for the addresses."""
    a = shape.arguments(splits)
    a.range_keys = math.ceil(shape.room / (splits * _WARPS * shape.block_keys)) * shape.block_keys
    a.split_keys = _WARPS * a.range_keys
    a.row_keys = shape.room
    a.sampled = int(shape.room > SAMPLED_KEYS)
    return a


def scratch_sizes(shape: Shape, a: Arguments) -> list[int]:
    """Bytes of the arrays `list`, `listed`, `histogram` and `allowed` of the kernels."""
    parts = shape.all_rows * a.splits
    counts = [shape.all_rows * a.row_keys, parts * _WARPS, parts * _BINS, parts]
    return [math.ceil(4 * count / 128) * 128 for count in counts]
