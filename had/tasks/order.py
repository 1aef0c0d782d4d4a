"""In which order a pass takes the examples of a data set."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Order:
    """A new permutation of all examples in every pass.

    Its representation names all of its settings: they are part of what determines a teacher.
    """

    def __call__(
        self, size: int, batch_size: int, batches: int, generator: torch.Generator
    ) -> list[int]:
        """The examples of one pass, `batch_size` of them a batch; a last one may have fewer.

        Args:
            size: examples of the data set.
            batch_size: examples a batch.
            batches: those of the pass that will be asked for: a run may end before the pass does.
            generator: of all that is random, seeded for this pass.
        """
        return torch.randperm(size, generator=generator).tolist()

    def after(self, share: float) -> Order:
        """The order without this share of its curriculum, from the beginning on; here is none."""
        return self
