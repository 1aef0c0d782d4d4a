"""Plots of curves from records, as PNG or SVG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from had.errors import HadError
from had.results.curves import N, Point, gaps_against, n_label
from had.results.measures import Measure, axis_label, by_measure
from had.results.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg")
_HEIGHT = 4  # inches of a panel

Curves = Mapping[str, Sequence[Point]]


def plot_gap(records: Sequence[Record], path: Path, x: str = N) -> None:
    """Draw how far students are behind against a number of the runs, one line a recipe.

    Points and ratios each have a panel. Error bars are standard errors, from the seeds; points
    where a task has one seed have none. The same records give the same file.

    Args:
        records: of any tasks and recipes.
        path: file to write.
        x: a numeric key of the records, drawn on a logarithmic axis.

    Raises:
        HadError: `path` ends in neither .png nor .svg, no record has `x`, or matplotlib is missing.
    """
    if path.suffix not in FORMATS:
        raise HadError(f"plots are written as .png or .svg, not as {path.name}")
    groups = by_measure(records)
    panels = {m: curves for m, own in groups.items() if (curves := gaps_against(own, x))}
    if not panels:
        raise HadError(f"--x {x}: no record has such a number above 0")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise HadError("plots need matplotlib: pip install 'had[plots]'") from error
    figure = Figure(figsize=(6.5, _HEIGHT * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False)[:, 0]
    for axis, (measure, curves) in zip(axes, panels.items(), strict=True):
        _draw(axis, curves, measure, groups[measure], x)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A fixed salt and no date: the same numbers give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "had"}):
        metadata: dict[str, Any] = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, dpi=150, metadata=metadata)


def _draw(axis: Axes, curves: Curves, measure: Measure, records: Sequence[Record], x: str) -> None:
    for name, points in curves.items():
        places, gaps, errors = zip(*points, strict=True)
        axis.errorbar(places, gaps, yerr=errors, marker="o", markersize=4, capsize=3, label=name)
    axis.axhline(measure.equal, color="black", linewidth=0.8)
    axis.set_xscale("log", base=2)
    label = n_label(records) if x == N else x
    axis.set(xlabel=label, ylabel=axis_label(measure, records))
    if "/" not in x:  # settings have few values, results one a run
        ticks_at(axis, sorted({point[0] for points in curves.values() for point in points}))
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))  # clear of the curves


def ticks_at(axis: Axes, places: Sequence[float]) -> None:
    """Ticks at these places alone."""
    axis.set_xticks(places, [f"{place:g}" for place in places])
    axis.set_xticks([], minor=True)
