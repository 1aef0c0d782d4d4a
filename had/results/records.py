"""Records of runs: one small JSON file each, and the tables made from them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from had.errors import HadError

RECORD = "record.json"
_IDENTITY = ("task", "model", "binarization", "schedule", "n")

Record = Mapping[str, Any]


def read_records(places: Iterable[Path]) -> list[dict[str, Any]]:
    """All records among files, run directories and folders of either.

    Raises:
        HadError: a place does not exist, or a file is no record.
    """
    return [_read(file) for place in places for file in _files(place)]


def _files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise HadError(f"{place}: no such record, run directory or folder of records")
    if (place / RECORD).is_file():
        return [place / RECORD]
    return sorted(place.rglob("*.json"))


def _read(file: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise HadError(f"{file}: not a readable record ({error})") from error
    missing = [key for key in (*_IDENTITY, "seed", "score/student") if key not in record]
    if missing:
        raise HadError(f"{file}: not a record of a run, it lacks {', '.join(missing)}")
    return record


def record_name(record: Record) -> str:
    """A file name that tells records apart: task, model, recipe, schedule, N and seed."""
    parts = [str(record[key]) for key in _IDENTITY] + [f"seed{record['seed']}"]
    return "-".join(part.replace("/", "_") for part in parts) + ".json"


def group_records(records: Sequence[Record]) -> dict[tuple[Any, ...], list[Record]]:
    """Records that differ in nothing but their seed, under task, model, recipe, schedule and N."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(record[key] for key in _IDENTITY), []).append(record)
    return groups


def results_rows(records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    """Headers and cells: teacher, student and paired drop in points, mean and spread over seeds."""
    headers = ["task", "model", "recipe", "N", "seeds", "teacher", "student", "drop"]
    rows = []
    groups = group_records(records)
    for key in sorted(groups, key=lambda key: tuple(map(str, key))):
        task, model, recipe, _, n = key
        columns = [
            _points([record[f"score/{name}"] for record in groups[key]])
            for name in ("teacher", "student", "drop")
        ]
        rows.append([task, model, recipe, str(n), str(len(groups[key])), *columns])
    return headers, rows


def mean_drops(records: Sequence[Record]) -> dict[tuple[str, str, str], float]:
    """The drop in points averaged over tasks, by model, recipe and N; seeds are averaged first."""
    by_recipe: dict[tuple[str, str, str], list[float]] = {}
    for (_, model, recipe, _, n), group in group_records(records).items():
        drops = [record["score/drop"] for record in group]
        by_recipe.setdefault((model, recipe, str(n)), []).append(mean(drops))
    return {key: mean(drops) for key, drops in by_recipe.items()}


def _points(values: Sequence[float]) -> str:
    spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{mean(values):.2f}{spread}"
