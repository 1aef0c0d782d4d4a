"""Tables on the terminal: the final one of a run, and any headers and cells."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

_COST_COLUMNS = (
    ("nJ/query on chip", "onchip_energy_per_query_nj"),
    ("energy ratio", "energy_ratio"),
    ("area mm2", "area_mm2"),
    ("area ratio", "area_ratio"),
    ("latency us", "latency_us"),
    ("latency ratio", "latency_ratio"),
)
"""Heading and quantity; ratios are to the baseline, latency is that of one sample."""


def run_table(
    title: str, score: str, metrics: Mapping[str, float], plain: Collection[str] = ()
) -> Table:
    """Teacher, student and drop for every metric that both have, the task's own first.

    Args:
        title: heading of the table.
        score: name of the metric that counts, marked with an asterisk.
        metrics: the flat dict of `metrics.json`; fractions are shown in points of 100.
        plain: metrics that are no fractions (perplexities): shown as they are, and in place of the
            drop by how much more the student has than the teacher.
    """
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("metric")
    for column in ("teacher", "student", "drop"):
        table.add_column(column, justify="right")
    names = [key.removeprefix("student/") for key in metrics if key.startswith("student/")]
    for name in sorted(names, key=lambda name: (name != score, name)):
        student, teacher = metrics[f"student/{name}"], metrics.get(f"teacher/{name}")
        cells = _plain_cells if name.rpartition("/")[2] in plain else _cells
        table.add_row(name + (" *" if name == score else ""), *cells(teacher, student))
    return table


def cost_table(metrics: Mapping[str, float]) -> Table | None:
    """What the student's attention costs on each accelerator; None if nothing was priced.

    Args:
        metrics: the flat dict of `metrics.json` with its `hw/<accelerator>/<quantity>` keys.
    """
    headers, rows = cost_rows(metrics)
    if not rows:
        return None
    table = Table(
        title="the student's attention on accelerators", title_justify="left", box=SIMPLE_HEAD
    )
    table.add_column(headers[0], no_wrap=True)
    for title in headers[1:]:
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def cost_rows(metrics: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headers and cells, a row for every accelerator that `hw/<accelerator>/<quantity>` names."""
    names = dict.fromkeys(key.split("/")[1] for key in metrics if key.startswith("hw/"))
    rows = []
    for name in names:
        values = [metrics.get(f"hw/{name}/{quantity}") for _, quantity in _COST_COLUMNS]
        rows.append([name, *("-" if value is None else f"{value:.3g}" for value in values)])
    return ["accelerator", *(title for title, _ in _COST_COLUMNS)], rows


def grid(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Headers and cells as a table."""
    table = Table(box=SIMPLE_HEAD)
    for header in headers:
        table.add_column(header, overflow="fold")  # nothing is cut off
    for row in rows:
        table.add_row(*row)
    return table


def _cells(teacher: float | None, student: float) -> tuple[str, str, str]:
    if teacher is None:
        return "", f"{100 * student:.2f}", ""
    return f"{100 * teacher:.2f}", f"{100 * student:.2f}", f"{100 * (teacher - student):+.2f}"


def _plain_cells(teacher: float | None, student: float) -> tuple[str, str, str]:
    if teacher is None:
        return "", f"{student:.3f}", ""
    return f"{teacher:.3f}", f"{student:.3f}", f"{student / teacher - 1:+.2%}"


def show(*tables: Table | None) -> None:
    """Print tables to the terminal, leaving out those that are None."""
    console = Console()
    for table in tables:
        if table is not None:
            console.print(table)
