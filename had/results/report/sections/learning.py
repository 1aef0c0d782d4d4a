"""Learning curves with the borders of the stages, from the CSV logs of the runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from had.results.report.charts import (
    color,
    drawing,
    legend_below,
    log_ticks,
    mark_border,
    mark_stages,
)
from had.results.report.curves import stage_starts
from had.results.report.elements import Element, Figure, Section, Text
from had.results.report.runs import Group, Run, slug

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOSSES = {
    "attention": "attention: KL, nats",
    "hidden": "hidden states: squared error",
    "output": "output: KL, nats, or squared error",
    "task": "task: the task's own loss",
}
"""Parts of the loss, unweighted, with their units."""
_DASHES = ("solid", "dashed", "dashdot", "dotted")


def learning(runs: Sequence[Run], groups: Sequence[Group]) -> Section:
    """A figure for every condition; seeds share it."""
    without = [run for run in runs if not _validated(run)]
    elements: list[Element] = [_figure(group) for group in groups if any(_plots(group))]
    if without:
        elements.append(
            Text(
                f"{len(without)} of {len(runs)} runs have no curves here: they are records alone, "
                "or were not trained with logger=csv."
            )
        )
    return Section("learning", "Learning curves", elements)


@dataclass(frozen=True)
class Plot:
    """What is drawn of one run."""

    run: Run
    metric: str
    validation: dict[int, float]
    losses: dict[str, dict[int, float]]


def _plots(group: Group) -> list[Plot]:
    plots = []
    for run in group.runs:
        if _validated(run):
            metric = str(run.config["task"]["score"])
            losses = {name: run.curves.get(f"train/{name}", {}) for name in LOSSES}
            plots.append(Plot(run, metric, run.curves.get(f"val/student/{metric}", {}), losses))
    return plots


def _validated(run: Run) -> bool:
    return any(name.startswith("val/student/") for name in run.curves)


def _figure(group: Group) -> Figure:
    plots = _plots(group)
    stages, starts = _stages(plots[0].run)
    last = max(step for plot in plots for curve in plot.run.curves.values() for step in curve)
    with drawing(height=4.4, rows=2, sharex=True) as sheet:
        score, loss = sheet.axes
        _draw_validation(score, plots)
        _draw_losses(loss, plots)
        if starts:
            mark_stages(score, starts, stages, last + 1)
            for start in starts:
                mark_border(loss, start)
        legend_below(loss)
    seeds = ", ".join(
        f"{plot.run.record['seed']} {_DASHES[index % len(_DASHES)]}"
        for index, plot in enumerate(plots)
    )
    between = f" Stages: {', '.join(stages)}." if starts else " The run has not logged its stages."
    return Figure(
        f"learning-{slug(group.name)}",
        sheet.svg,
        f"Score and losses of {group.name} over {last + 1} steps.",
        f"{group.name}: above, {plots[0].metric} on the evaluation set while training, and level "
        f"the finished teacher's; below, parts of the loss, before their weights. Seeds: {seeds}."
        f"{between}",
    )


def _stages(run: Run) -> tuple[list[str], list[int]]:
    """Names and first steps of the stages, in their order."""
    starts = stage_starts(run.curves)
    configured = run.config["schedule"]["stages"]
    return [configured[number]["name"] for number in starts], list(starts.values())


def _draw_validation(axis: Axes, plots: Sequence[Plot]) -> None:
    for index, plot in enumerate(plots):
        style = _style(index)
        axis.plot(*_line(plot.validation), color=color(0), marker="o", markersize=3, **style)
        teacher = plot.run.record.get(f"teacher/{plot.metric}")
        if teacher is not None:
            axis.axhline(teacher, color=color(4), zorder=0, **style)
    axis.set_ylabel(plots[0].metric)


def _draw_losses(axis: Axes, plots: Sequence[Plot]) -> None:
    for part, (name, label) in enumerate(LOSSES.items()):
        curves = [plot.losses[name] for plot in plots]
        for index, curve in enumerate(curves):
            if curve:
                first = not any(curves[:index])
                shown: dict[str, Any] = {"color": color(part), "label": label if first else None}
                axis.plot(*_line(curve), **shown, **_style(index))
    if any(any(plot.losses.values()) for plot in plots):
        log_ticks(axis, "y")
    axis.set(xlabel="optimizer step", ylabel="training loss")


def _style(seed: int) -> dict[str, Any]:
    """Seeds differ by their dashes."""
    return {"linestyle": _DASHES[seed % len(_DASHES)], "linewidth": 1}


def _line(curve: dict[int, float]) -> tuple[list[int], list[float]]:
    return list(curve), list(curve.values())
