"""Signs as bits: 32 of a query's or key's signs in one int32 word.

Bit i of word w is b(x)[32 w + i], 1 for +1. A width that is no multiple of 32 leaves the last
word's upper bits zero on both sides, so they never count as a difference.
"""

from __future__ import annotations

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
    width = x.shape[-1]
    bits = torch.nn.functional.pad(x >= 0, (0, words_for(width) * WORD - width))
    places = torch.arange(WORD, device=x.device, dtype=torch.int32)
    # Bits are distinct, so their sum is their union; bit 31 wraps to the sign, as it should.
    return (bits.unflatten(-1, (-1, WORD)).to(torch.int32) << places).sum(-1, dtype=torch.int32)


def unpack_signs(words: Tensor, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The signs of `pack_signs`, -1 or +1: (..., W) to (..., width)."""
    places = torch.arange(WORD, device=words.device, dtype=torch.int32)
    bits = (words.unsqueeze(-1) >> places) & 1
    return (2 * bits.flatten(-2)[..., :width] - 1).to(dtype)
