"""Which of PyTorch's fused attention kernels may train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def without_cudnn() -> Iterator[None]:
    """Attention by any other kernel than cuDNN's, PyTorch's first choice on Hopper GPUs.

    In bfloat16 its backward gives gradients that are no numbers for some shapes, now and then and
    from finite inputs (https://github.com/pytorch/pytorch/issues/196678).
    """
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
