"""Signs as bits: 32 of a query's or key's signs in one int32 word.

Bit i of word w is b(x)[32 w + i], 1 for +1. A width that is no multiple of 32 leaves the last
word's upper bits zero on both sides, so they never count as a difference.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

WORD = 32


def words_for(width: int) -> int:
    """int32 words that hold `width` signs."""
    return -(-width // WORD)


def pack_signs(x: Tensor) -> Tensor:
    """b(x) as bits, sign(0) = +1.

    Args:
        x: (..., D), any floating dtype.

    Returns:
        int32 (..., ceil(D / 32)), contiguous.
    """
    from had.attention.backends import cuda_pack

    if not cuda_pack.supports(x):
        return _pack(x)
    words = torch.empty((*x.shape[:-1], words_for(x.shape[-1])), dtype=torch.int32, device=x.device)
    cuda_pack.pack(x, words)
    return words


def pack_signs_into(words: Tensor, x: Tensor) -> None:
    """Put the signs of x (B, G, T, D) where a cache has room for them.

    Args:
        words: int32 (B, G, T, ceil(D / 32)), its last dimension contiguous.
        x: any floating dtype.
    """
    from had.attention.backends import cuda_pack

    if cuda_pack.supports(x):
        cuda_pack.pack(x, words)
    else:
        words.copy_(_pack(x))


def _pack(x: Tensor) -> Tensor:
    """`pack_signs` in PyTorch's own operations."""
    bits = x >= 0
    if missing := -x.shape[-1] % WORD:
        bits = torch.nn.functional.pad(bits, (0, missing))
    # Bits are distinct, so their sum is their union. Three kernels, for each costs time to launch.
    parts = bits.view(*x.shape[:-1], words_for(x.shape[-1]), WORD) * _powers_of_two(x.device)
    return parts.sum(-1, dtype=torch.int32)


def unpack_signs(words: Tensor, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The signs of `pack_signs`, -1 or +1: (..., W) to (..., width)."""
    places = torch.arange(WORD, device=words.device, dtype=torch.int32)
    bits = (words.unsqueeze(-1) >> places) & 1
    return (2 * bits.flatten(-2)[..., :width] - 1).to(dtype)


@cache
def _powers_of_two(device: torch.device) -> Tensor:
    """What every bit of a word counts, int32; the last is the sign."""
    with torch.inference_mode(False):
        return torch.tensor([*(1 << i for i in range(WORD - 1)), -(1 << (WORD - 1))]).to(
            device=device, dtype=torch.int32
        )
