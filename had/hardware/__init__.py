"""Analytic accelerator model: what attention costs in energy, area, power and time. No torch."""

from had.hardware.cost import (
    CostCase,
    SweepAxis,
    SweepPoint,
    compare,
    cost_metrics,
    evaluate,
    parse_sweep,
    sweep,
)
from had.hardware.costs import ComponentCost, CostReport, StageCost
from had.hardware.model import ModelGeometry
from had.hardware.reduction import Reduction, reduction
from had.hardware.spec import Accelerator, available, load_accelerator, load_pipeline
from had.hardware.workload import AttentionWorkload, LayerWorkload

__all__ = [
    "Accelerator",
    "AttentionWorkload",
    "ComponentCost",
    "CostCase",
    "CostReport",
    "LayerWorkload",
    "ModelGeometry",
    "Reduction",
    "StageCost",
    "SweepAxis",
    "SweepPoint",
    "available",
    "compare",
    "cost_metrics",
    "evaluate",
    "load_accelerator",
    "load_pipeline",
    "parse_sweep",
    "reduction",
    "sweep",
]
