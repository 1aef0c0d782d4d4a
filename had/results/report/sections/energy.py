"""Accuracy against energy: every recipe on every accelerator, and the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from had.hardware.plots import pareto_front
from had.results.report.charts import INK, bars, color, drawing, legend_below, marker
from had.results.report.elements import Figure, Section, Table, Text
from had.results.report.runs import Group, Run, row_name
from had.results.report.sections.scores import drop_label
from had.results.statistics import Row, rows_of
from had.results.views import with_spread

_ENERGY = "onchip_energy_per_query_nj"
_RATIO = "energy_ratio"  # of these
TEACHER = "teacher"


@dataclass(frozen=True)
class Point:
    """A recipe on an accelerator.

    Attributes:
        name: of the recipe, or of the teacher.
        model: its label.
        accelerator: where it is priced.
        energy: nJ a query, the mean over tasks and seeds.
        ratio: of the energy to the baseline's; None if it was not recorded.
        drop: mean over tasks.
        error: its standard error; None with one seed.
    """

    name: str
    model: str
    accelerator: str
    energy: float
    ratio: float | None
    drop: float
    error: float | None


def energy(runs: Sequence[Run], groups: Sequence[Group]) -> Section:
    """The figure, and the table behind it."""
    points = _points(runs)
    if not points:
        text = "No record holds a cost (hw/...): these runs were made with hardware=none."
        return Section("energy", "Accuracy against energy", [Text(text)])
    front = pareto_front([(point.energy, -point.drop) for point in points])
    label = drop_label(runs)
    return Section(
        "energy", "Accuracy against energy", [_figure(points, front, label), _table(points, front)]
    )


def _points(runs: Sequence[Run]) -> list[Point]:
    rows = rows_of(run.record for run in runs)
    names = dict.fromkeys(
        key.split("/")[1] for run in runs for key in run.record if key.endswith(f"/{_ENERGY}")
    )
    found = [point for name in names for row in rows if (point := _point(row, rows, name))]
    students = [point for point in found if point.ratio != 1.0]
    return [*_teachers([point for point in found if point.ratio == 1.0]), *students]


def _teachers(dense: Sequence[Point]) -> list[Point]:
    """The baseline is dense attention in full precision: what it costs is what teachers cost."""
    energies: dict[tuple[str, str], list[float]] = {}
    for point in dense:
        energies.setdefault((point.model, point.accelerator), []).append(point.energy)
    return [
        Point(f"{TEACHER} {model}", model, accelerator, mean(each), 1.0, 0.0, None)
        for (model, accelerator), each in energies.items()
    ]


def _point(row: Row, rows: Sequence[Row], accelerator: str) -> Point | None:
    energies = _values(row, f"hw/{accelerator}/{_ENERGY}")
    if not energies:
        return None
    ratios = _values(row, f"hw/{accelerator}/{_RATIO}")
    ratio = mean(ratios) if ratios else None
    name = row_name(row, rows)
    return Point(name, row.model, accelerator, mean(energies), ratio, row.drop, row.error)


def _values(row: Row, key: str) -> list[float]:
    return [record[key] for record in row.records if key in record]


def _figure(points: Sequence[Point], front: Sequence[tuple[float, float]], label: str) -> Figure:
    accelerators = list(dict.fromkeys(point.accelerator for point in points))
    with drawing(height=3.8) as sheet:
        (axis,) = sheet.axes
        for index, name in enumerate(accelerators):
            own = [point for point in points if point.accelerator == name]
            axis.errorbar(
                [point.energy for point in own],
                [point.drop for point in own],
                bars([point.error for point in own]),
                fmt=marker(index),
                color=color(index),
                markersize=5,
                elinewidth=0.8,
                capsize=3,
                label=f"{TEACHER}: {name}" if own[0].ratio == 1.0 else name,
            )
        costs, scores = zip(*front, strict=True)
        drops = [-score for score in scores]
        axis.step(costs, drops, where="post", color=INK, linewidth=0.9)
        ring = {"markersize": 10, "markerfacecolor": "none", "linestyle": "none"}
        axis.plot(costs, drops, marker="o", color=INK, label="Pareto front", **ring)
        axis.set_xscale("log")
        axis.invert_yaxis()
        axis.set(xlabel="on-chip attention energy per query, nJ", ylabel=label)
        legend_below(axis, columns=3)
    return Figure(
        "energy",
        sheet.svg,
        f"{len(points)} points on {', '.join(accelerators)}; the table has the numbers.",
        f"Mean over tasks ({label}; up is better) against the on-chip energy of attention per "
        "query in nJ, by accelerator. Bars: ± one standard error from the seeds. "
        "Ringed: the Pareto front, which no cheaper point equals.",
    )


def _table(points: Sequence[Point], front: Sequence[tuple[float, float]]) -> Table:
    rows = [
        [
            *(point.name, point.accelerator, f"{point.energy:.4g}"),
            "" if point.ratio is None else f"{point.ratio:.3g}",
            with_spread(point.drop, point.error),
            "yes" if (point.energy, -point.drop) in front else "",
        ]
        for point in sorted(points, key=lambda point: point.energy)
    ]
    headers = ["model", "accelerator", "nJ/query", "ratio to baseline", "mean drop", "on the front"]
    return Table(
        headers,
        rows,
        "On-chip energy of attention per query at the lengths that were evaluated, cheapest first; "
        "mean drop over tasks ± its standard error from the seeds.",
    )
