"""Accuracy against energy: every recipe on every accelerator, and the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

from had.hardware.plots import pareto_front
from had.results.measures import Measure, axis_label
from had.results.report.charts import INK, drawing, legend_below, log_ticks, series
from had.results.report.elements import Element, Figure, Section, Table, Text
from had.results.report.runs import Group, Run, row_name, slug
from had.results.statistics import Row, rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ENERGY = "onchip_energy_per_query_nj"
_RATIO = "energy_ratio"  # of these
TEACHER = "teacher"


@dataclass(frozen=True)
class Point:
    """A recipe on an accelerator.

    Attributes:
        name: of the recipe, or of the teacher.
        accelerator: where it is priced.
        energy: nJ a query, the mean over tasks and seeds.
        ratio: of the energy to the baseline's; None if it was not recorded.
        gap: to the teacher, mean over tasks.
        error: its standard error; None with one seed.
    """

    name: str
    accelerator: str
    energy: float
    ratio: float | None
    gap: float
    error: float | None


@dataclass(frozen=True)
class Field:
    """Rows that may be compared: one model on the same tasks, of one measure.

    Attributes:
        name: what is compared.
        points: students, and the teacher on the baseline.
        measure: of the gaps.
        label: what a gap is counted in.
    """

    name: str
    points: Sequence[Point]
    measure: Measure
    label: str

    @property
    def front(self) -> list[tuple[float, float]]:
        """Energy and negative gap of the points that no cheaper one equals."""
        return pareto_front([(point.energy, -point.gap) for point in self.points])


def energy(runs: Sequence[Run], groups: Sequence[Group]) -> Section:
    """A figure for every model and set of tasks, and the table behind it."""
    elements: list[Element] = []
    for field in _fields(runs):
        elements += [_figure(field), _table(field)]
    text = "No record holds a cost (hw/...): these runs were made with hardware=none."
    return Section("energy", "Accuracy against energy", elements or [Text(text)])


def _fields(runs: Sequence[Run]) -> list[Field]:
    rows = rows_of(run.record for run in runs)
    comparable: dict[str, list[Row]] = {}
    for row in rows:
        comparable.setdefault(f"{row.model} on {', '.join(row.cells)}", []).append(row)
    fields = [_field(name, own) for name, own in comparable.items()]
    return [field for field in fields if field.points]


def _field(name: str, rows: Sequence[Row]) -> Field:
    measure = rows[0].measure
    label = axis_label(measure, [record for row in rows for record in row.records])
    return Field(name, _points(rows), measure, label)


def _points(rows: Sequence[Row]) -> list[Point]:
    keys = dict.fromkeys(key for row in rows for record in row.records for key in record)
    names = [key.split("/")[1] for key in keys if key.endswith(f"/{_ENERGY}")]
    found = [point for name in names for row in rows if (point := _point(row, rows, name))]
    # The baseline is dense attention in full precision: what it costs is what the teacher costs.
    dense = [point for point in found if point.ratio == 1.0]
    students = [point for point in found if point.ratio != 1.0]
    if not dense:
        return students
    cost = mean(point.energy for point in dense)
    return [Point(TEACHER, dense[0].accelerator, cost, 1.0, rows[0].measure.equal, None), *students]


def _point(row: Row, rows: Sequence[Row], accelerator: str) -> Point | None:
    energies = _values(row, f"hw/{accelerator}/{_ENERGY}")
    if not energies:
        return None
    ratios = _values(row, f"hw/{accelerator}/{_RATIO}")
    ratio = mean(ratios) if ratios else None
    return Point(row_name(row, rows), accelerator, mean(energies), ratio, row.gap, row.error)


def _values(row: Row, key: str) -> list[float]:
    return [record[key] for record in row.records if key in record]


def _figure(field: Field) -> Figure:
    points = field.points
    accelerators = list(dict.fromkeys(point.accelerator for point in points))
    with drawing(height=3.8) as sheet:
        (axis,) = sheet.axes
        for index, name in enumerate(accelerators):
            own = [point for point in points if point.accelerator == name]
            label = f"{TEACHER}: {name}" if own[0].ratio == 1.0 else name
            costs, gaps = [point.energy for point in own], [point.gap for point in own]
            series(axis, index, label, (costs, gaps), [point.error for point in own], line=False)
        _draw_front(axis, field)
        log_ticks(axis, "x")
        axis.invert_yaxis()
        axis.set(xlabel="on-chip attention energy per query, nJ", ylabel=field.label)
        legend_below(axis, columns=3)
    return Figure(
        f"energy-{slug(field.name)}",
        sheet.svg,
        f"{len(points)} points on {', '.join(accelerators)}; the table has the numbers.",
        f"{field.name}: mean over tasks ({field.label}; up is better) against the on-chip energy "
        "of attention per query in nJ, by accelerator. Bars: ± one standard error from the seeds. "
        "Ringed: the Pareto front, which no cheaper point equals.",
    )


def _draw_front(axis: Axes, field: Field) -> None:
    """Its points ringed, and the steps between them."""
    costs, scores = zip(*field.front, strict=True)
    gaps = [-score for score in scores]
    axis.step(costs, gaps, where="post", color=INK, linewidth=0.9)
    ring: dict[str, Any] = {"markersize": 10, "markerfacecolor": "none", "linestyle": "none"}
    axis.plot(costs, gaps, marker="o", color=INK, label="Pareto front", **ring)


def _table(field: Field) -> Table:
    front = field.front
    rows = [
        [
            *(point.name, point.accelerator, f"{point.energy:.4g}"),
            "" if point.ratio is None else f"{point.ratio:.3g}",
            field.measure.text(point.gap, point.error),
            "yes" if (point.energy, -point.gap) in front else "",
        ]
        for point in sorted(field.points, key=lambda point: point.energy)
    ]
    gap = f"mean {field.measure.heading}"
    headers = ["model", "accelerator", "nJ/query", "ratio to baseline", gap, "on the front"]
    return Table(
        headers,
        rows,
        f"{field.name}: on-chip energy of attention per query at the lengths that were evaluated, "
        f"cheapest first; {gap} over tasks ± its standard error from the seeds.",
    )
