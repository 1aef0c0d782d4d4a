"""Designs known only by two figures their papers print: reference points, marked as published."""

from __future__ import annotations

from dataclasses import dataclass

from had.hardware.costs import ComponentCost, CostReport, StageCost
from had.hardware.workload import AttentionWorkload, LayerWorkload


@dataclass(frozen=True)
class PublishedDesign:
    """A design priced by the operations of dense attention over its published rates.

    Attributes:
        name: Name of the spec.
        title: One line on what it is.
        source: Where the two figures come from.
        gops: Effective 1e9 operations a second.
        gops_per_joule: Effective 1e9 operations a joule.
    """

    name: str
    title: str
    source: str
    gops: float
    gops_per_joule: float

    def evaluate(self, workload: AttentionWorkload) -> CostReport:
        """Return the cost of a workload, whatever its n: the rates count dense operations."""
        operations = sum(effective_operations(layer) for layer in workload.layers)
        seconds = operations / (self.gops * 1e9)
        energy_pj = operations / (self.gops_per_joule * 1e9) * 1e12
        passes = sum(layer.passes for layer in workload.layers)
        return CostReport(
            accelerator=self.name,
            title=self.title,
            workload=workload,
            components=(ComponentCost("published", "attention", energy_pj),),
            stages=(StageCost("attention", seconds / passes * 1e9),),
            busy_s=seconds,
            latency_s=seconds,
            area_known=False,
            published=True,
            notes=(f"published figures, not modelled: {self.source}",),
        )


def effective_operations(layer: LayerWorkload) -> float:
    """Return the operations of dense attention in one layer and sample.

    2 d n for the scores, 2 n for the softmax and 2 dv n for the values of each head pass, as
    tmo324/CAMformerV1 experiments/notebooks/Simulate.ipynb counts them.
    """
    per_key = 2 * layer.head_dim + 2 + 2 * layer.value_dim
    return layer.passes * layer.key_length * per_key
