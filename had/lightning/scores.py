"""What an evaluation counts: metrics of teacher and student on every evaluation set."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from had.tasks.base import Task


class Scores:
    """Metrics of some models on all evaluation sets, filled batch by batch.

    Args:
        task: whose metrics they are.
        evaluation_sets: their names; "" is the main one.
        roles: "teacher", "student" or both; with both, their agreement is measured as well.
        device: where logits will come from.
    """

    def __init__(
        self, task: Task, evaluation_sets: Sequence[str], roles: Sequence[str], device: torch.device
    ) -> None:
        self._sets = evaluation_sets
        self._metrics: dict[tuple[str, str], MetricCollection] = {
            (role, name): task.metrics().to(device) for role in roles for name in evaluation_sets
        }
        agreements = {name: task.agreement() for name in evaluation_sets if len(roles) > 1}
        self._agreement: dict[str, Metric] = {
            name: each.to(device) for name, each in agreements.items() if each is not None
        }

    def count(self, role: str, index: int, logits: Tensor, labels: Tensor) -> None:
        """One batch of one model on the evaluation set of this index."""
        self._metrics[role, self._sets[index]].update(logits, labels)

    def compare(self, index: int, student: Tensor, teacher: Tensor) -> None:
        """The logits of both models for one batch."""
        if (agreement := self._agreement.get(self._sets[index])) is not None:
            agreement.update(student, teacher)

    def results(self) -> dict[str, Tensor]:
        """`role/metric` for the main evaluation set, `role/set/metric` for others."""
        results = {
            (role, name, metric): value
            for (role, name), collection in self._metrics.items()
            for metric, value in collection.compute().items()
        }
        for name, agreement in self._agreement.items():
            results["student", name, "agreement"] = agreement.compute()
        return {"/".join(filter(None, key)): value for key, value in results.items()}
