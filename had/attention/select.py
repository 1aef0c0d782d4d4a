"""Top-N selection without sorting: the same keys as `topn.topn_mask`, found by a threshold.

The N-th largest allowed score is the threshold; keys above it are kept, and of the keys equal to it
the first ones that fill the row up to N. For long rows this costs one partial selection and two
passes instead of two stable sorts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from had.attention.topn import TopN, allowed_keys, keys_to_keep


def topn_mask(scores: Tensor, n: TopN, mask: Tensor | None = None) -> Tensor:
    """Contract and result of `had.attention.topn.topn_mask`; floating scores only."""
    allowed = allowed_keys(scores, mask)
    keys = scores.shape[-1]
    if isinstance(n, int) and n >= keys:
        return allowed
    count = keys_to_keep(n, allowed.sum(-1, keepdim=True))
    masked = scores.masked_fill(~allowed, -math.inf)
    # A row that may see all keys keeps the most: no need to look at the device's counts.
    threshold = nth_largest(masked, count, most=int(keys_to_keep(n, torch.tensor(keys))))
    above = masked > threshold
    ties = (masked == threshold) & allowed
    quota = count - above.sum(-1, keepdim=True)
    return above | (ties & (ties.cumsum(-1) <= quota))


def topn_indices(scores: Tensor, n: int) -> Tensor:
    """Which n scores of every row are the largest; of equal scores the lowest index first.

    One pass over the scores on GPUs for which there is a kernel (compute capability 9.0), a stable
    sort elsewhere. Ranks beyond the order of indices are not returned: the n indices ascend.

    Args:
        scores: uint8 (..., S).
        n: 1 .. S.

    Returns:
        int64 (..., n), ascending in every row.

    Raises:
        ValueError: the scores are not uint8, or n is out of range.
    """
    if scores.dtype != torch.uint8:
        raise ValueError(f"scores are {scores.dtype}: must be uint8")
    if not 1 <= n <= scores.shape[-1]:
        raise ValueError(f"n = {n}: must be in 1 .. {scores.shape[-1]}, the scores of a row")
    from had.attention.backends import cuda_select

    rows = scores.reshape(-1, scores.shape[-1])
    if cuda_select.supports(rows):
        indices = cuda_select.topn_indices(rows, n)
    else:
        indices = rows.argsort(dim=-1, descending=True, stable=True)[:, :n].sort(dim=-1).values
    return indices.reshape(*scores.shape[:-1], n)


def nth_largest(scores: Tensor, count: Tensor, most: int) -> Tensor:
    """The count-th largest score of every row.

    Args:
        scores: (..., S).
        count: integer (..., 1), 0 .. most; a count of 0 gives the largest score.
        most: an upper bound of count, at most S.

    Returns:
        (..., 1).
    """
    largest = torch.topk(scores, most, dim=-1).values
    return largest.gather(-1, (count - 1).clamp_min(0))
