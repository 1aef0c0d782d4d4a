"""New tokens at the end of a cache's buffers: keys as signs, values as they come."""

from __future__ import annotations

import torch
from torch import Tensor

from had.attention.backends import cuda_pack
from had.attention.bits import pack_signs_into


def append(key: Tensor, value: Tensor, words: Tensor, values: Tensor, at: int) -> None:
    """Store T tokens in buffers that have room for them, with one launch if possible.

    Args:
        key: (B, G, T, D).
        value: (B, G, T, V).
        words: buffer of signs, int32 (B, G, capacity, ceil(D / 32)), its last dimension contiguous.
        values: buffer of values, (B, G, capacity, V), likewise; may be of another type than value.
        at: first place of the new tokens.
    """
    if cuda_pack.supports(key) and cuda_pack.copies(value, values):
        cuda_pack.append(key, value, words, values, at)
        return
    new = key.shape[2]
    pack_signs_into(words.narrow(2, at, new), key)
    values.narrow(2, at, new).copy_(within(value, values.dtype))


def within(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Values cut off at what an 8-bit float can hold; wider types take them as they are."""
    if dtype.itemsize > 1:
        return values
    most = torch.finfo(dtype).max
    return values.clamp(-most, most)
