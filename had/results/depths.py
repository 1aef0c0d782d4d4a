"""Retrieval by length of the text and depth of the fact hidden in it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from had.results.measures import METRIC
from had.results.records import Record
from had.results.statistics import Cell, Row, rows_of
from had.results.views import Rows, both, keys, label

_PLACE = re.compile(r"student/(?P<part>length(?P<length>\d+)_depth(?P<depth>\d+))/\w+")


def has_places(record: Record) -> bool:
    """Whether a run was evaluated by length and depth."""
    return any(map(_PLACE.fullmatch, record))


def depth_rows(records: Sequence[Record]) -> Rows:
    """Headers and cells, a row for every length of a text: student (gap) by depth of the fact."""
    rows = rows_of(records)
    found = [(row, task, _places(row, task)) for row in rows for task in row.cells]
    depths = sorted({depth for *_, places in found for _, depth in places})
    titles = [f"depth {depth} %" for depth in depths]
    cells = []
    for row, task, places in found:
        named = [task, row.model, label(row, rows), keys(row.n)]
        for length in sorted({length for length, _ in places}):
            by_depth = [places.get((length, depth)) for depth in depths]
            shown = ["" if cell is None else both(row.measure, cell) for cell in by_depth]
            cells.append([*named, str(length), str(row.cells[task].gap.count), *shown])
    return ["task", "model", "recipe", "N", "tokens", "seeds", *titles], cells


def _places(row: Row, task: str) -> dict[tuple[int, int], Cell]:
    """What a task says of each length of a text in tokens and depth of its fact in percent."""
    records = [record for record in row.records if record["task"] == task]
    found = {match["part"]: match for key in records[0] if (match := _PLACE.fullmatch(key))}
    return {
        (int(match["length"]), int(match["depth"])): Cell.of([_part(r, part) for r in records])
        for part, match in found.items()
    }


def _part(record: Record, part: str) -> Record:
    """A record as if a part of its evaluation were all of it; such parts are shares of answers."""
    metric = record.get(METRIC, "accuracy")
    teacher, student = (100 * record[f"{role}/{part}/{metric}"] for role in ("teacher", "student"))
    return {"score/teacher": teacher, "score/student": student, "score/drop": teacher - student}
