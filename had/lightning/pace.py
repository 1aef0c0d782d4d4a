"""Parts of a model that move further than the rest in every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Pace:
    """Stretches what an optimizer does to some weights: as a learning rate of their own would.

    Rates of optimizers belong to whole parameters, and queries, keys and values may share one.

    Args:
        weights: views of parameters, see `had.attention.projections`.
        factor: how many times as far they move, weight decay included.
    """

    def __init__(self, weights: Sequence[Tensor], factor: float) -> None:
        self._weights, self._factor = list(weights), factor
        self._before = [weight.clone() for weight in self._weights]

    def watch(self, optimizer: torch.optim.Optimizer) -> None:
        """Stretch every step of the optimizer from now on."""
        optimizer.register_step_pre_hook(self._remember)
        optimizer.register_step_post_hook(self._stretch)

    def _remember(self, *_: Any) -> None:
        torch._foreach_copy_(self._before, self._weights)

    def _stretch(self, *_: Any) -> None:
        # From where they were, factor times as far as they went.
        torch._foreach_lerp_(self._weights, self._before, 1 - self._factor)
