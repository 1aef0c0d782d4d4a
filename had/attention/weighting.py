"""How much each kept key of a row counts: the softmax, or one bit as well.

A weighting maps scores and the selection, both (B, H, T, S), to weights of that shape: zero outside
of the selection, each row summing to 1, or to 0 where nothing is selected.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from had.attention.functional import masked_softmax, straight_through


def binary_weights(scores: Tensor, mask: Tensor) -> Tensor:
    """The attention matrix binarized as well: equal weights for keys of above-average weight.

    The ablation that arXiv 2502.01770 calls SAB; its threshold is not published, the row's mean
    softmax weight is ours. The gradient is that of the softmax (straight-through estimator).
    """
    soft = masked_softmax(scores, mask)
    mean = 1 / mask.sum(dim=-1, keepdim=True).clamp_min(1)
    chosen = ((soft >= mean) & mask).to(soft.dtype)
    return straight_through(chosen / chosen.sum(dim=-1, keepdim=True).clamp_min(1), soft)


WEIGHTINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "softmax": masked_softmax,
    "binary": binary_weights,
}
