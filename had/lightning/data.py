"""Data loaders whose order depends on the seed and the step alone, so that a run can be resumed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from had.tasks.base import Batch, EncodedDataset, identity


class ShuffledBatches(Sampler[list[int]]):
    """The batches of a whole run: every pass in the order that the data set wants, and a new one.

    Its length is that of the whole run also when it starts in the middle, since the trainer counts
    the batches done before a resume.

    Args:
        dataset: whose examples they are.
        batch_size: examples a step, over all processes.
        total: batches of the whole run.
        seed: of the order.
        skipped: share of the data set's curriculum that is left out.
        start: batches already done.
        rank: of this process.
        world_size: number of processes; each takes its share of every batch, or the whole of a
            last one that has not an example for everybody.
    """

    def __init__(
        self,
        dataset: EncodedDataset,
        batch_size: int,
        total: int,
        seed: int,
        *,
        skipped: float = 0.0,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.dataset, self.batch_size = dataset, batch_size
        self.total, self.seed = total, seed
        self._order = dataset.order.after(skipped)
        self.start, self.rank, self.world_size = start, rank, world_size

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[list[int]]:
        per_pass = math.ceil(len(self.dataset) / self.batch_size)
        current = -1
        order: list[int] = []
        for index in range(self.start, self.total):
            if index // per_pass != current:
                current = index // per_pass
                order = self._of_pass(current, min(per_pass, self.total - current * per_pass))
            first = index % per_pass * self.batch_size
            batch = order[first : first + self.batch_size]
            shared = len(batch) >= self.world_size
            yield batch[self.rank :: self.world_size] if shared else batch

    def _of_pass(self, number: int, batches: int) -> list[int]:
        generator = torch.Generator().manual_seed(hash((self.seed, number)) % 2**63)
        return self._order(len(self.dataset), self.batch_size, batches, generator)


def training_loader(batches: ShuffledBatches) -> DataLoader[Batch]:
    """All batches of a run as one pass of a loader."""
    return DataLoader(batches.dataset, batch_sampler=batches, **_common(batches.dataset))


def evaluation_loader(dataset: EncodedDataset, batch_size: int) -> DataLoader[Batch]:
    """The examples in order; every process evaluates all of them."""
    return DataLoader(dataset, batch_size=batch_size, shuffle=False, **_common(dataset))


def draw_seed(seed: int, batch: int, rank: int = 0) -> int:
    """The seed of what is random in one batch of training, the same after a resume.

    Args:
        seed: of the run.
        batch: its number, from the start of the run.
        rank: of the process: each draws for its own part of the batch.
    """
    return hash((seed, batch, rank)) % 2**63


def _common(dataset: EncodedDataset) -> dict[str, Any]:
    # A generator of its own: creating an iterator must not draw from the global random state.
    return {
        "collate_fn": identity,
        "pin_memory": torch.cuda.is_available(),
        "generator": torch.Generator(),
        "num_workers": dataset.workers,
    }
