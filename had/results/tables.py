"""The final table of a run."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table


def run_table(title: str, score: str, metrics: Mapping[str, float]) -> Table:
    """Teacher, student and drop for every metric that both have, the task's own first.

    Args:
        title: heading of the table.
        score: name of the metric that counts, marked with an asterisk.
        metrics: the flat dict of `metrics.json`; fractions are shown in points of 100.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    for column in ("teacher", "student", "drop"):
        table.add_column(column, justify="right")
    names = [key.removeprefix("student/") for key in metrics if key.startswith("student/")]
    for name in sorted(names, key=lambda name: (name != score, name)):
        student, teacher = metrics[f"student/{name}"], metrics.get(f"teacher/{name}")
        table.add_row(name + (" *" if name == score else ""), *_cells(teacher, student))
    return table


def _cells(teacher: float | None, student: float) -> tuple[str, str, str]:
    if teacher is None:
        return "", f"{100 * student:.2f}", ""
    return f"{100 * teacher:.2f}", f"{100 * student:.2f}", f"{100 * (teacher - student):+.2f}"


def show(table: Table) -> None:
    """Print a table to the terminal."""
    Console().print(table)
