"""Curves from records: how far students are behind their teachers, against a number of the runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import mean

from had.results.records import Record, value_at
from had.results.statistics import Row, rows_of
from had.results.views import keys, label

log = logging.getLogger(__name__)

N = "n"

Point = tuple[float, float, float]


def gaps_against(records: Sequence[Record], x: str) -> dict[str, list[Point]]:
    """Points from left to right by curve: place, mean gap over tasks, its standard error or 0.

    Args:
        records: of one measure.
        x: a number of the records: N, a result such as "hw/<accelerator>/<quantity>", along which N
            may vary, or a setting such as "task.context", along which it may not.

    A point that lacks a task which the one with the most tasks has is left out, with a warning.
    """
    rows = rows_of(records)
    placed: dict[str, list[tuple[float, Row]]] = {}
    for row, name in zip(rows, _names(rows, x), strict=True):
        place = _share_or_count(row, rows) if x == N else _number(row, x)
        if place is not None:
            placed.setdefault(name, []).append((place, row))
    alike = {name: _of_the_same_tasks(name, points) for name, points in placed.items()}
    return {
        name: sorted((place, row.gap, row.error or 0.0) for place, row in points)
        for name, points in alike.items()
    }


def _of_the_same_tasks(
    name: str, points: Sequence[tuple[float, Row]]
) -> Iterator[tuple[float, Row]]:
    """The points of a curve that are means over the same tasks as the one with the most."""
    tasks = [{record["task"] for record in row.records} for _, row in points]
    most = max(tasks, key=len)
    for (place, row), own in zip(points, tasks, strict=True):
        if missing := most - own:
            log.warning("%s at %g lacks %s, left out", name, place, ", ".join(sorted(missing)))
        else:
            yield place, row


def n_label(records: Sequence[Record]) -> str:
    """What an axis of N counts."""
    shares = all(isinstance(record[N], float) for record in records)
    return f"N, {'% of the ' if shares else ''}keys that a query keeps"


def _share_or_count(row: Row, rows: Sequence[Row]) -> float | None:
    """N; where all are shares of the keys in percent. One share among numbers has no place."""
    if all(isinstance(each.n, float) for each in rows):
        return 100 * row.n
    if isinstance(row.n, float):
        log.warning("%s at N = %s: a share of the keys, left out", row.recipe, keys(row.n))
        return None
    return row.n


def _number(row: Row, x: str) -> float | None:
    """The mean over a row's records, all of which must have it, above 0."""
    values = [value_at(record, x) for record in row.records]
    numbers = [value for value in values if isinstance(value, int | float) and value > 0]
    return mean(numbers) if len(numbers) == len(values) else None


def _names(rows: Sequence[Row], x: str) -> list[str]:
    """The curve of each row: model where there are several, recipe, N where that tells apart."""
    alike = [_without(row, x) for row in rows]
    models, kept = ({getattr(row, key) for row in rows} for key in ("model", "n"))
    named_n = len(kept) > 1 and _is_setting(x)
    return [
        ", ".join(
            [row.model] * (len(models) > 1) + [label(row, alike)] + [f"N = {keys(row.n)}"] * named_n
        )
        for row in alike
    ]


def _without(row: Row, x: str) -> Row:
    """A row that does not say what varies along its curve."""
    others = tuple(text for text in row.overrides if text.partition("=")[0] != x)
    return replace(row, overrides=others)


def _is_setting(x: str) -> bool:
    return x != N and "/" not in x
