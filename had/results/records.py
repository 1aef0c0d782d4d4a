"""Records of runs: one small JSON file each, what tells them apart, and which belong together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from had.config.wording import one_of
from had.errors import HadError

RECORD = "record.json"
AXES = ("task", "model", "binarization", "schedule", "n")
OVERRIDES = "overrides"  # what else sets a run apart from the defaults; none in older records

Record = Mapping[str, Any]
Identity = tuple[Any, ...]


def read_records(places: Iterable[Path]) -> list[dict[str, Any]]:
    """All records among files, run directories and folders of either.

    Raises:
        HadError: a place does not exist, or a file is no record.
    """
    return [read_record(file) for place in places for file in record_files(place)]


def record_files(place: Path) -> list[Path]:
    """The files of all records in a place: itself, in a run directory, or anywhere in a folder.

    Raises:
        HadError: there is no such place.
    """
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise HadError(f"{place}: no such record, run directory or folder of records")
    runs = {file.parent for file in place.rglob(RECORD)}
    # A run directory holds other JSON files as well.
    others = [f for f in place.rglob("*.json") if runs.isdisjoint(f.parents)]
    return sorted([*(run / RECORD for run in runs), *others])


def read_record(file: Path) -> dict[str, Any]:
    """One record.

    Raises:
        HadError: the file is none.
    """
    try:
        record: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise HadError(f"{file}: not a readable record ({error})") from error
    missing = [key for key in (*AXES, "seed", "score/student") if key not in record]
    if missing:
        raise HadError(f"{file}: not a record of a run, it lacks {', '.join(missing)}")
    return record


def condition_of(record: Record) -> Identity:
    """What was run, apart from the seed: the axes and all other overrides, sorted."""
    return (*(record[key] for key in AXES), tuple(sorted(record.get(OVERRIDES, ()))))


def identity_of(record: Record) -> Identity:
    """What no two runs worth keeping have in common: the condition and the seed."""
    return (*condition_of(record), record["seed"])


def record_name(record: Record) -> str:
    """A file name that tells records apart: task, model, recipe, schedule, N and seed.

    A run with further overrides has their digest at the end.
    """
    parts = [str(record[key]) for key in AXES] + [f"seed{record['seed']}"]
    if overrides := sorted(record.get(OVERRIDES, ())):
        digest = hashlib.blake2b("\n".join(overrides).encode(), digest_size=4)
        parts.append(digest.hexdigest())
    return "-".join(part.replace("/", "_") for part in parts) + ".json"


def with_settings(records: Sequence[Record]) -> Iterator[tuple[Record, tuple[str, ...]]]:
    """Each record with the further settings that tell it from others, sorted.

    A record of a run at the default of a setting that others of its task have changed names its
    value as well, if it knows it.
    """
    changed: dict[str, set[str]] = {}
    for record in records:
        keys = {text.partition("=")[0] for text in record.get(OVERRIDES, ())}
        changed.setdefault(record["task"], set()).update(keys)
    for record in records:
        own = set(record.get(OVERRIDES, ()))
        named = {text.partition("=")[0] for text in own}
        known = {key for key in changed[record["task"]] - named if key in record}
        yield record, tuple(sorted(own | {f"{key}={record[key]}" for key in known}))


def value_at(record: Record, key: str) -> Any:
    """What a record says of itself at a key, or of a setting among its overrides; None: nothing."""
    if key in record:
        return record[key]
    overrides = dict(text.split("=", 1) for text in record.get(OVERRIDES, ()) if "=" in text)
    return yaml.safe_load(overrides[key]) if key in overrides else None


def where(records: Sequence[dict[str, Any]], filters: Sequence[str]) -> list[dict[str, Any]]:
    """The records that pass all filters such as "binarization=had,had_plus".

    Raises:
        HadError: a filter is not of that form, or names neither an axis nor a setting that any
            record knows.
    """
    wanted: dict[str, set[str]] = {}
    for text in filters:
        key, found, values = text.partition("=")
        known = key in (*AXES, "seed") or _is_setting(key, records)
        if not found or not known:
            axes = one_of(key, (*AXES, "seed"))
            raise HadError(
                f"--where {text}: must be key=value,... with key {axes}, or a setting that the "
                "records hold, as task.context"
            )
        wanted[key] = set(values.split(","))
    return [
        record
        for record in records
        if all(str(value_at(record, key)) in values for key, values in wanted.items())
    ]


def _is_setting(key: str, records: Sequence[Record]) -> bool:
    return "." in key and any(value_at(record, key) is not None for record in records)
