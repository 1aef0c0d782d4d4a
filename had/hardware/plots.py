"""Plots of costs as PNG or SVG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from had.errors import HadError
from had.hardware.cost import LABELS, SweepPoint
from had.hardware.costs import CostReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")
OTHER = "other"
# Parts below this share of every bar are drawn as one.
NOTABLE = 0.05


def plot_breakdown(reports: Sequence[CostReport], path: Path) -> Path:
    """Draw area and average power of each accelerator, stacked by component.

    Raises:
        HadError: `path` ends neither in .png nor in .svg, or matplotlib is missing.
    """
    figure, (area, power) = _figure(path, columns=2)
    areas = {_label(one): _areas(one) for one in reports}
    powers = {_label(one): _powers(one) for one in reports}
    names = list(dict.fromkeys(_notable(areas) + _notable(powers)))
    _stack(area, areas, names)
    _stack(power, powers, names)
    area.set(xlabel="area, mm2")
    power.set(xlabel="average power, W")
    power.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return _save(figure, path)


def plot_sweep(points: Sequence[SweepPoint], path: Path) -> Path:
    """Draw energy per query and latency against the swept knob, one line an accelerator.

    Raises:
        HadError: As `plot_breakdown`.
    """
    figure, axes = _figure(path, columns=2)
    quantities = {"energy_per_query_nj": "energy per query, nJ", "latency_us": "latency, us"}
    for axis, (quantity, label) in zip(axes, quantities.items(), strict=True):
        for index, report in enumerate(points[0].reports):
            heights = [point.reports[index].quantities()[quantity] for point in points]
            values = [point.value for point in points]
            axis.plot(values, heights, marker="o", label=_label(report))
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set(xlabel=LABELS[points[0].parameter], ylabel=label)
    axes[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))  # clear of the curves
    return _save(figure, path)


def plot_pareto(
    records: Sequence[Mapping[str, Any]], path: Path, accelerator: str = "camformer"
) -> Path:
    """Draw drop against energy per query of several runs, and the front of the best of them.

    Args:
        records: Flat run records with `score/drop` and the `hw/...` keys.
        path: File to write.
        accelerator: Whose energy to draw.

    Raises:
        HadError: No record has both figures, or as `plot_breakdown`.
    """
    energy_key = f"hw/{accelerator}/energy_per_query_nj"
    points = [
        (float(record[energy_key]), float(record["score/drop"]))
        for record in records
        if energy_key in record and "score/drop" in record
    ]
    if not points:
        raise HadError(f"no record has both '{energy_key}' and 'score/drop'")
    figure, (axis,) = _figure(path, columns=1)
    axis.scatter(*zip(*points, strict=True))
    front = pareto_front([(energy, -drop) for energy, drop in points])
    axis.step(*zip(*((energy, -score) for energy, score in front), strict=True), where="post")
    axis.invert_yaxis()  # up is better
    label = "drop below the teacher: points of 100, % of a perplexity"
    axis.set(xlabel=f"energy per query on {accelerator}, nJ", ylabel=label)
    return _save(figure, path)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the (cost, score) points that no cheaper point equals or beats, cheapest first."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def _label(report: CostReport) -> str:
    return f"{report.accelerator} (published)" if report.published else report.accelerator


def _areas(report: CostReport) -> dict[str, float]:
    return {part.name: part.area_um2 / 1e6 for part in report.components}


def _powers(report: CostReport) -> dict[str, float]:
    return {part.name: part.energy_pj * 1e-12 / report.busy_s for part in report.components}


def _notable(bars: Mapping[str, Mapping[str, float]]) -> list[str]:
    return [
        name
        for parts in bars.values()
        for name, width in parts.items()
        if width > NOTABLE * sum(parts.values())
    ]


def _stack(axis: Axes, bars: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> None:
    left = dict.fromkeys(bars, 0.0)
    for index, name in enumerate([*names, OTHER]):
        widths = [_width(parts, name, names) for parts in bars.values()]
        color = "lightgrey" if name == OTHER else f"C{index % 10}"
        hatch = "//" if index >= 10 else None
        axis.barh(
            list(bars), widths, left=list(left.values()), color=color, hatch=hatch, label=name
        )
        left = {one: left[one] + width for one, width in zip(bars, widths, strict=True)}
    axis.invert_yaxis()


def _width(parts: Mapping[str, float], name: str, names: Sequence[str]) -> float:
    if name == OTHER:
        return sum(width for part, width in parts.items() if part not in names)
    return parts.get(name, 0.0)


def _figure(path: Path, *, columns: int) -> tuple[Figure, Sequence[Axes]]:
    if path.suffix not in FORMATS:
        raise HadError(f"plots are written as .png or .svg, not as '{path.name}'")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise HadError("plots need matplotlib: pip install 'had[plots]'") from error
    figure = Figure(figsize=(5.5 * columns, 4), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path
