"""Summary and scores: tables with error bars over seeds, and the drops side by side."""

from __future__ import annotations

from collections.abc import Sequence

from had.results.plots import drops_against, ticks_at
from had.results.records import Record
from had.results.report.charts import (
    bars,
    color,
    drawing,
    legend_below,
    marker,
    wrapped,
    zero_line,
)
from had.results.report.elements import Figure, Section, Table, Text
from had.results.report.runs import Group, Run, row_name
from had.results.statistics import rows_of
from had.results.views import caption, keys, long_rows, wide_rows, with_spread

DROP = "drop below the teacher, points of 100"
RATIO = "perplexity above the teacher's, %"


def drop_label(records: Sequence[Record]) -> str:
    """What a drop is counted in: tasks with a perplexity compare by its ratio."""
    ratios = {"score/ratio" in record for record in records}
    if ratios == {True}:
        return RATIO
    return DROP if ratios == {False} else "drop, points of 100, or % more perplexity"


def summary(runs: Sequence[Run], groups: Sequence[Group]) -> Section:
    """What there is, in a paragraph, and a row for every recipe."""
    records = [run.record for run in runs]
    rows = rows_of(records)
    best = min(rows, key=lambda row: row.drop)
    text = (
        f"{_count(len(runs), 'run')} of {_count(len(groups), 'condition')}: "
        f"{_values(runs, 'task')}; {_values(runs, 'model')}; {_values(runs, 'binarization')}; "
        f"N {', '.join(dict.fromkeys(keys(row.n) for row in rows))}; {_values(runs, 'seed')}. "
        f"The smallest mean drop, {with_spread(best.drop, best.error)}, has {row_name(best, rows)}."
    )
    table = Table(*wide_rows(records), caption("recipe", records).replace("`", ""))
    return Section("summary", "Summary", [Text(text), table])


def scores(runs: Sequence[Run], groups: Sequence[Group]) -> Section:
    """A row for every task and condition, and the drops drawn."""
    records = [run.record for run in runs]
    table = Table(*long_rows(records), caption("task", records).replace("`", ""))
    return Section("scores", "Scores", [table, _drops(runs), *_against_n(runs)])


def _drops(runs: Sequence[Run]) -> Figure:
    records = [run.record for run in runs]
    rows, label = rows_of(records), drop_label(records)
    tasks = sorted({task for row in rows for task in row.cells})
    names = [wrapped(row_name(row, rows)) for row in rows]
    lines = sum(max(2, 1 + name.count("\n")) for name in names)
    with drawing(height=1.1 + 0.15 * lines + 0.2 * (1 + len(tasks) // 5)) as sheet:
        (axis,) = sheet.axes
        for index, task in enumerate(tasks):
            own = [(place, row) for place, row in enumerate(rows) if task in row.cells]
            drops = [row.cells[task].drop for _, row in own]
            places = [place + 0.5 * (index + 1) / (len(tasks) + 1) - 0.25 for place, _ in own]
            axis.errorbar(
                [drop.mean for drop in drops],
                places,
                xerr=bars([drop.deviation for drop in drops]),
                fmt=marker(index),
                color=color(index),
                markersize=5,
                capsize=3,
                label=task,
            )
        zero_line(axis, vertical=True)
        axis.set_yticks(range(len(rows)), names)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_xlabel(label)
        if len(tasks) > 1:
            legend_below(axis, columns=5)
    return Figure(
        "drops",
        sheet.svg,
        f"Drop of {_count(len(rows), 'recipe')} on {', '.join(tasks)}; the table has the numbers.",
        f"Teacher minus student, by recipe and N ({label}). Bars: ± one standard "
        "deviation over seeds; none where there is one seed.",
    )


def _against_n(runs: Sequence[Run]) -> list[Figure]:
    """The drop against N, if there are several."""
    records = [run.record for run in runs]
    curves, label = drops_against(records, "n"), drop_label(records)
    places = sorted({point[0] for points in curves.values() for point in points})
    if len(places) < 2:
        return []
    with drawing(height=3.2) as sheet:
        (axis,) = sheet.axes
        for index, (name, points) in enumerate(curves.items()):
            x, drops, errors = zip(*points, strict=True)
            aside = 1 + 0.02 * (index - (len(curves) - 1) / 2)  # bars side by side
            axis.errorbar(
                *([place * aside for place in x], drops, bars(errors)),
                marker=marker(index),
                color=color(index),
                markersize=5,
                capsize=3,
                label=name,
            )
        zero_line(axis)
        axis.set_xscale("log", base=2)
        ticks_at(axis, places)
        axis.set(xlabel="N, keys that a query keeps", ylabel=label)
        legend_below(axis)
    return [
        Figure(
            "drop-against-n",
            sheet.svg,
            f"Drop against N of {', '.join(curves)}; the table has the numbers.",
            f"Mean drop over tasks against N ({label}). Bars: ± one standard error, "
            "from the seeds; none where a task has one seed.",
        )
    ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _values(runs: Sequence[Run], key: str) -> str:
    values = list(dict.fromkeys(str(run.record[key]) for run in runs))
    return f"{key}{'' if len(values) == 1 else 's'} {', '.join(sorted(values))}"
