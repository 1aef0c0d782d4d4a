"""From runs to a report, and from a report to files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from had.results.report import html, markdown
from had.results.report.elements import Report
from had.results.report.heads import Inspection
from had.results.report.runs import Group, Run
from had.results.report.sections.agreement import agreement
from had.results.report.sections.energy import energy
from had.results.report.sections.heads import heads
from had.results.report.sections.learning import learning
from had.results.report.sections.scores import scores, summary
from had.results.report.sections.settings import settings

PAGE = "report.html"
MARKDOWN = "report.md"


def build(
    runs: Sequence[Run],
    groups: Sequence[Group],
    inspections: Mapping[str, Inspection],
    command: str,
) -> Report:
    """All sections.

    Args:
        runs: of any tasks, models and recipes.
        groups: the same runs by what was run (`groups_of`).
        inspections: students by the name of their group, for those at hand.
        command: that is said to have made the report.

    Raises:
        HadError: matplotlib is missing, or a run directory is damaged.
    """
    tasks = ", ".join(sorted({group.task for group in groups}))
    sections = [
        *(section(runs, groups) for section in (summary, scores, learning, agreement, energy)),
        heads(groups, inspections),
        settings(runs, groups),
    ]
    return Report(f"Hamming attention on {tasks}", sections, command)


def write(report: Report, directory: Path) -> list[Path]:
    """Write `report.html`, which needs no other file, and `report.md` with its figures."""
    files = {
        directory / PAGE: html.page(report),
        directory / MARKDOWN: markdown.page(report),
        **{
            directory / markdown.FIGURES / f"{figure.name}.svg": markdown.figure_file(figure)
            for figure in report.figures
        },
    }
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return list(files)
