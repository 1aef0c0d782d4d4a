"""A decoding step in one kernel, `cuda_decode_fused.cu`: all its blocks are resident at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from had.attention.backends import cuda_compile
from had.attention.backends.base import PackedCall
from had.attention.backends.cuda_decode_plan import SAMPLED_KEYS
from had.attention.backends.cuda_decode_shape import (
    MOST_ROWS,
    Arguments,
    Part,
    Shape,
    processors_of,
)

THREADS = 512
FIXED_BYTES = 144_000  # of shared memory, beside the scores
MOST_BYTES = 232_448  # that a block may have on Hopper
_WARPS = THREADS // 32
_SPARE_BYTES = 32  # between the scores of two rows
_MOST_SPLIT_KEYS = 2**16 - 2**11  # 16 bits count them
_LEAST_SPLIT_KEYS = 512  # fewer are not worth another block's mail
_MOST_PICKS = 768  # kept keys of all rows, for a block; two kernels gather more faster
_ROW_WORDS = 66 + 128  # of a split's mail about a row: its histogram and its sums


class OneKernel:
    """The launch for calls of one shape, as for all layers of a model."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        kernel = shape.kernel("fused", "attend", THREADS, MOST_BYTES)
        a = template(shape, splits_of(shape, processors_of(shape.device)))
        self._launch = cuda_compile.Launch(
            kernel,
            (a.splits, shape.groups, shape.batch),
            overlapping=True,
            cooperative=True,
            shared_bytes=shared_bytes(shape, a),
        )
        self._arguments = a

    def run(self, call: PackedCall, part: Part | None = None) -> Tensor:
        """The output of a call of this shape; the logs of a part's sums are left in it."""
        query, output = call.query.contiguous(), self.shape.output_for(call)
        a = Arguments.from_buffer_copy(self._arguments)
        a.point_to(call, query, output, part)
        stream = cuda_compile.current_stream(self.shape.device)
        a.mail = _MAILBOXES.of(self.shape.device, stream).data_ptr()
        self._launch(a, stream)
        return output


def fits(shape: Shape, processors: int) -> bool:
    """Whether a multiprocessor each holds the blocks, and its shared memory the scores."""
    if shape.batch * shape.groups > processors:
        return False
    a = template(shape, splits_of(shape, processors))
    return shared_bytes(shape, a) <= MOST_BYTES and a.split_keys <= _MOST_SPLIT_KEYS


def worthwhile(shape: Shape, processors: int) -> bool:
    """Whether one kernel is faster than two for a shape that fits.

    It is where two would list every key, and where there is little to gather.
    """
    if shape.room <= SAMPLED_KEYS:
        return True
    a = template(shape, splits_of(shape, processors))
    return shape.rows * shape.most_kept <= _MOST_PICKS * a.splits


def splits_of(shape: Shape, processors: int) -> int:
    """Parts of a key head's keys: they keep all multiprocessors busy if the context is long."""
    most = processors // (shape.batch * shape.groups)
    return min(most, math.ceil(shape.room / _LEAST_SPLIT_KEYS))


def template(shape: Shape, splits: int) -> Arguments:
    """The kernel's arguments but for the addresses; in whole blocks, at most so many splits."""
    block = shape.block_keys
    split_keys = math.ceil(shape.room / (splits * block)) * block
    a = shape.arguments(math.ceil(shape.room / split_keys))
    a.split_keys = split_keys
    a.range_keys = math.ceil(split_keys / (_WARPS * block)) * block
    return a


def shared_bytes(shape: Shape, a: Arguments) -> int:
    """Of a block."""
    return FIXED_BYTES + shape.rows * (a.split_keys + _SPARE_BYTES)


def mail_words(splits: int) -> int:
    """Words of the mail of so many splits, of all heads together."""
    return splits * MOST_ROWS * _ROW_WORDS


class _Mailboxes:
    """The kernel's mail, all ones between launches: one for a stream, one for a captured graph.

    Launches that may overlap in time must not share one. A graph fills its own when it begins.
    """

    def __init__(self) -> None:
        self._boxes: dict[tuple[int, int, bool], tuple[int, Tensor]] = {}

    def of(self, device: int, stream: int) -> Tensor:
        capturing = torch.cuda.is_current_stream_capturing()
        capture = cuda_compile.capture_of(stream) if capturing else 0
        kept, box = self._boxes.get((device, stream, capturing), (None, None))
        if box is None or kept != capture:
            words = mail_words(processors_of(device))
            box = torch.full((words,), -1, dtype=torch.int32, device=f"cuda:{device}")
            self._boxes[device, stream, capturing] = capture, box
        return box


_MAILBOXES = _Mailboxes()
