"""Curves from records, as PNG or SVG files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from had.errors import HadError
from had.results.records import Record
from had.results.statistics import Row, rows_of
from had.results.views import label

log = logging.getLogger(__name__)

FORMATS = (".png", ".svg")
_LABELS = {"n": "N, keys that a query keeps"}

Point = tuple[float, float, float]


def plot_drop(records: Sequence[Record], path: Path, x: str = "n") -> None:
    """Draw the mean drop over tasks against a figure of the runs, one line a recipe.

    Error bars are standard errors, from the seeds; points where a task has one seed have none. The
    same records give the same file.

    Args:
        records: of any tasks and recipes.
        path: file to write.
        x: a numeric key of the records, drawn on a logarithmic axis.

    Raises:
        HadError: `path` ends in neither .png nor .svg, no record has `x`, or matplotlib is missing.
    """
    if path.suffix not in FORMATS:
        raise HadError(f"plots are written as .png or .svg, not as {path.name}")
    curves = drops_against(records, x)
    if not curves:
        raise HadError(f"--x {x}: no record has such a number above 0")
    _draw(curves, path, x)


def drops_against(records: Sequence[Record], x: str) -> dict[str, list[Point]]:
    """Points from left to right by recipe: `x`, mean drop over tasks, its standard error or 0."""
    curves = {name: _curve(own, x) for name, own in _by_recipe(rows_of(records)).items()}
    return {name: curve for name, curve in curves.items() if curve}


def _by_recipe(rows: Sequence[Row]) -> dict[str, list[Row]]:
    several = len({row.model for row in rows}) > 1
    curves: dict[str, list[Row]] = {}
    for row in rows:
        name = f"{row.model}, {label(row, rows)}" if several else label(row, rows)
        curves.setdefault(name, []).append(row)
    return curves


def _curve(rows: Sequence[Row], x: str) -> list[Point]:
    """Points (x, drop, error) from left to right; a fraction for N is no place on this axis."""
    points = []
    for row in rows:
        values = [record.get(x) for record in row.records]
        if x == "n" and not isinstance(row.n, int):
            log.warning("%s at N = %s: a share of the keys, left out", row.recipe, row.n)
        elif all(isinstance(value, int | float) and value > 0 for value in values):
            points.append((mean(values), row.drop, row.error or 0.0))
    return sorted(points)


def _draw(curves: dict[str, list[Point]], path: Path, x: str) -> None:
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise HadError("plots need matplotlib: pip install 'had[plots]'") from error
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axis = figure.subplots()
    for name, points in curves.items():
        places, drops, errors = zip(*points, strict=True)
        axis.errorbar(places, drops, yerr=errors, marker="o", markersize=4, capsize=3, label=name)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_xscale("log", base=2)
    axis.set(xlabel=_LABELS.get(x, x), ylabel="drop below the teacher, points of 100")
    if x == "n":
        ticks_at(axis, sorted({point[0] for points in curves.values() for point in points}))
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))  # clear of the curves
    path.parent.mkdir(parents=True, exist_ok=True)
    # A fixed salt and no date: the same numbers give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "had"}):
        metadata: dict[str, Any] = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, dpi=150, metadata=metadata)


def ticks_at(axis: Any, places: Sequence[float]) -> None:
    """Ticks at these places alone."""
    axis.set_xticks(places, [f"{place:g}" for place in places])
    axis.set_xticks([], minor=True)
