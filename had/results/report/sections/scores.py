"""Summary and scores: tables with error bars over seeds, and the gaps side by side."""

from __future__ import annotations

from collections.abc import Sequence

from had.results.curves import N, gaps_against, n_label
from had.results.measures import Measure, axis_label, by_measure
from had.results.plots import ticks_at
from had.results.records import Record
from had.results.report.charts import (
    drawing,
    equal_line,
    legend_below,
    series,
    wrapped,
)
from had.results.report.elements import Figure, Section, Table, Text
from had.results.report.runs import Group, Run, row_name
from had.results.shown import tables
from had.results.statistics import Row, rows_of
from had.results.views import keys


def summary(runs: Sequence[Run], groups: Sequence[Group]) -> Section:
    """What there is, in a paragraph, and a row for every recipe."""
    records = [run.record for run in runs]
    rows = rows_of(records)
    text = (
        f"{_count(len(runs), 'run')} of {_count(len(groups), 'condition')}: "
        f"{_values(runs, 'task')}; {_values(runs, 'model')}; {_values(runs, 'binarization')}; "
        f"N {', '.join(dict.fromkeys(keys(row.n) for row in rows))}; {_values(runs, 'seed')}."
    )
    best = [_best(measure, rows) for measure in by_measure(records)]
    return Section("summary", "Summary", [Text(" ".join([text, *best])), *_tables("recipe", runs)])


def _best(measure: Measure, rows: Sequence[Row]) -> str:
    best = min((row for row in rows if row.measure is measure), key=lambda row: row.gap)
    gap = measure.text(best.gap, best.error)
    return f"The smallest mean {measure.heading}, {gap}, has {row_name(best, rows)}."


def scores(runs: Sequence[Run], groups: Sequence[Group]) -> Section:
    """A row for every task and condition, and the gaps drawn."""
    figures = [
        figure
        for measure, records in by_measure(run.record for run in runs).items()
        for figure in (_gaps(measure, records), *_against_n(measure, records))
    ]
    return Section("scores", "Scores", [*_tables("task", runs), *figures])


def _tables(view: str, runs: Sequence[Run]) -> list[Table]:
    shown = tables(view, [run.record for run in runs])
    return [Table(*table.rows, table.caption.replace("`", "")) for table in shown]


def _gaps(measure: Measure, records: Sequence[Record]) -> Figure:
    rows, label = rows_of(records), axis_label(measure, records)
    tasks = sorted({task for row in rows for task in row.cells})
    names = [wrapped(row_name(row, rows)) for row in rows]
    lines = sum(max(2, 1 + name.count("\n")) for name in names)
    with drawing(height=1.1 + 0.15 * lines + 0.2 * (1 + len(tasks) // 5)) as sheet:
        (axis,) = sheet.axes
        for index, task in enumerate(tasks):
            own = [(place, row) for place, row in enumerate(rows) if task in row.cells]
            gaps = [row.cells[task].gap for _, row in own]
            places = [place + 0.5 * (index + 1) / (len(tasks) + 1) - 0.25 for place, _ in own]
            means, deviations = [gap.mean for gap in gaps], [gap.deviation for gap in gaps]
            series(axis, index, task, (means, places), deviations, spread_of="x", line=False)
        equal_line(axis, measure.equal, vertical=True)
        axis.set_yticks(range(len(rows)), names)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_xlabel(label)
        if len(tasks) > 1:
            legend_below(axis, columns=5)
    return Figure(
        f"{measure.heading}s",
        sheet.svg,
        f"{measure.heading.capitalize()} of {_count(len(rows), 'recipe')} on {', '.join(tasks)}; "
        "the table has the numbers.",
        f"{measure.heading.capitalize()} = {measure.definition}, by recipe and N ({label}). Bars: "
        "± one standard deviation over seeds; none where there is one seed.",
    )


def _against_n(measure: Measure, records: Sequence[Record]) -> list[Figure]:
    """The gap against N, if there are several."""
    curves, label = gaps_against(records, N), axis_label(measure, records)
    places = sorted({point[0] for points in curves.values() for point in points})
    if len(places) < 2:
        return []
    with drawing(height=3.2) as sheet:
        (axis,) = sheet.axes
        for index, (name, points) in enumerate(curves.items()):
            x, gaps, errors = zip(*points, strict=True)
            aside = 1 + 0.02 * (index - (len(curves) - 1) / 2)  # bars side by side
            series(axis, index, name, ([place * aside for place in x], gaps), errors)
        equal_line(axis, measure.equal)
        axis.set_xscale("log", base=2)
        ticks_at(axis, places)
        axis.set(xlabel=n_label(records), ylabel=label)
        legend_below(axis)
    return [
        Figure(
            f"{measure.heading}-against-n",
            sheet.svg,
            f"{measure.heading.capitalize()} against N of {', '.join(curves)}; the table has the "
            "numbers.",
            f"Mean {measure.heading} over tasks against N ({label}). Bars: ± one standard error, "
            "from the seeds; none where a task has one seed.",
        )
    ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _values(runs: Sequence[Run], key: str) -> str:
    values = list(dict.fromkeys(str(run.record[key]) for run in runs))
    return f"{key}{'' if len(values) == 1 else 's'} {', '.join(sorted(values))}"
