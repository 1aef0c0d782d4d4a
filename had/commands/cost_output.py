"""What `had cost` shows: tables, plots, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from had.commands.pricing import Pricing
from had.hardware.cost import SweepPoint, parse_sweep, sweep
from had.hardware.costs import CostReport
from had.hardware.plots import FORMATS, plot_breakdown, plot_pareto, plot_sweep
from had.hardware.report import (
    as_dict,
    breakdown_table,
    comparison_table,
    sweep_table,
    totals_table,
)

CONTEXTS = "n=128..65536"  # plotted where no other contexts are asked for
SWEPT = ("energy_per_query_nj", "latency_us")
PIPED_WIDTH = 160  # columns of output that goes to no terminal


@dataclass
class Answer:
    """Everything that is shown.

    Attributes:
        pricing: what was priced.
        baseline: the accelerator that ratios are taken to.
        reports: one an accelerator.
        sweeps: the points of each sweep.
        plots: files written.
    """

    pricing: Pricing
    baseline: CostReport
    reports: list[CostReport]
    sweeps: list[list[SweepPoint]]
    plots: list[Path] = field(default_factory=list)


def draw(answer: Answer, records: Sequence[dict[str, Any]], directory: Path) -> list[Path]:
    """Draw all there is to draw, each as PNG and as SVG, and return the files.

    Args:
        answer: what was priced.
        records: of runs, with their scores and costs.
        directory: where the files go.

    Raises:
        HadError: no record has a drop and a cost on one of the accelerators, or there is no
            matplotlib.
    """
    sweeps = {points[0].parameter: points for points in answer.sweeps}
    if "n" not in sweeps:
        pricing = answer.pricing
        sweeps["n"] = sweep(pricing.case, parse_sweep(CONTEXTS), pricing.accelerators)
    drawings: dict[str, Callable[..., Path]] = {
        "breakdown": partial(plot_breakdown, answer.reports),
        **{f"sweep_{name}": partial(plot_sweep, points) for name, points in sweeps.items()},
    }
    for name in [report.accelerator for report in answer.reports if records]:
        drawings[f"pareto_{name}"] = partial(plot_pareto, records, accelerator=name)
    return [
        plot(path=directory / f"{name}{ending}")
        for name, plot in drawings.items()
        for ending in FORMATS
    ]


def show_tables(answer: Answer) -> None:
    """Print the breakdown of one accelerator or the comparison of several, and the sweeps."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPED_WIDTH)
    if len(answer.reports) == 1:
        console.print(breakdown_table(answer.reports[0]))
        console.print(totals_table(answer.reports[0], answer.baseline))
    else:
        console.print(comparison_table(answer.reports, answer.baseline))
    for points in answer.sweeps:
        for quantity in SWEPT:
            console.print(sweep_table(points, quantity))
        for line in _notes(points[-1]):
            console.print(line, style="italic", markup=False)
    for file in answer.plots:
        console.print(str(file), soft_wrap=True, markup=False)


def _notes(point: SweepPoint) -> list[str]:
    """What must be known of the last point, where designs are stretched furthest."""
    return [
        f"at {point.parameter} = {point.value}, {report.accelerator}: {note}"
        for report in point.reports
        for note in report.notes
    ]


def show_json(answer: Answer) -> None:
    """Write everything as one JSON object."""
    pricing, case = answer.pricing, answer.pricing.case
    geometry = asdict(case.geometry)
    geometry.pop("name")
    content = {
        "model": pricing.model,
        "task": pricing.task,
        "geometry": geometry,
        "context": case.context,
        "query_length": case.query_length,
        "n": case.n,
        "minimum": case.minimum,
        "baseline": answer.baseline.accelerator,
        "reports": [
            {**as_dict(report), "ratios": report.ratios(answer.baseline)}
            for report in answer.reports
        ],
        "sweeps": [_swept(points) for points in answer.sweeps],
        "plots": [str(file) for file in answer.plots],
    }
    sys.stdout.write(json.dumps(content, indent=2) + "\n")


def _swept(points: Sequence[SweepPoint]) -> dict[str, Any]:
    return {
        "parameter": points[0].parameter,
        "points": [
            {
                "value": point.value,
                "quantities": {one.accelerator: one.quantities() for one in point.reports},
            }
            for point in points
        ],
    }
