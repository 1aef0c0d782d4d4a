"""What others have published, beside our own rows: each with its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

FILE = Path(__file__).with_name("published.yaml")
CAPTION = (
    "Published, for comparison and not like for like: another model (BERT-base), and, where bits "
    "are given as W-E-A, weights, embeddings and activations of those widths, while ours have "
    "one-bit queries and keys alone. Loss: average of the full-precision row less this one."
)


@dataclass(frozen=True)
class Published:
    """One row of somebody's table.

    Attributes:
        method: its name.
        bits: of weights, embeddings and activations, or in words.
        average: over GLUE, as printed.
        source: where it is printed.
        teacher: the method whose average the loss is measured against.
        tasks: scores by the names of our tasks.
    """

    method: str
    bits: str
    average: float
    source: str
    teacher: str | None = None
    tasks: dict[str, float] = field(default_factory=dict)


def published() -> list[Published]:
    """All rows of published.yaml."""
    return [Published(**row) for row in yaml.safe_load(FILE.read_text())["rows"]]


def published_rows(tasks: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Headers and cells; scores of those tasks that any row has."""
    rows = published()
    known = [task for task in tasks if any(task in row.tasks for row in rows)]
    full = {row.method: row.average for row in rows if row.teacher is None}
    headers = ["published", "bits", *known, "average", "loss", "source"]
    cells = []
    for row in rows:
        scores = [f"{row.tasks[task]:g}" if task in row.tasks else "" for task in known]
        loss = "" if row.teacher is None else f"{full[row.teacher] - row.average:.2f}"
        cells.append([row.method, row.bits, *scores, f"{row.average:g}", loss, row.source])
    return headers, cells
