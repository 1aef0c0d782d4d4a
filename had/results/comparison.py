"""What differs between two runs: settings, environment, results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from had.config.leaves import WITHOUT_EFFECT, leaves
from had.results.records import AXES, OVERRIDES, Record

ABSENT = object()
"""In place of the value of a key that there is not; None is a value."""

_ENVIRONMENT = ("had", "python", "packages", "commit", "device")
_IDENTITY = (*AXES, "seed", OVERRIDES)


@dataclass(frozen=True)
class Difference:
    """A key whose values differ.

    Attributes:
        key: dotted.
        first: its value in the first run, or `ABSENT`.
        second: likewise.
    """

    key: str
    first: Any
    second: Any

    @property
    def change(self) -> float | None:
        """Second minus first of two numbers, else None."""
        if _is_number(self.first) and _is_number(self.second):
            return float(self.second - self.first)
        return None


@dataclass(frozen=True)
class Comparison:
    """Everything that is compared.

    Attributes:
        settings: that differ.
        environment: versions, commit and device that differ.
        results: all metrics that either has, equal ones as well.
    """

    settings: list[Difference]
    environment: list[Difference]
    results: list[Difference]


def compare(
    first: Record,
    second: Record,
    configurations: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None,
) -> Comparison:
    """Compare two runs.

    Args:
        first: a record.
        second: another one.
        configurations: of both, resolved; None: what the records say of themselves is compared.
    """
    if configurations is None:
        settings = _differing(_identity(first), _identity(second))
    else:
        settings = _differing(*map(settings_of, configurations))
    environment = _differing(version_settings(first), version_settings(second))
    return Comparison(settings, environment, _paired(results_of(first), results_of(second)))


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys and values of what decides a run's results; lists are walked like mappings."""
    return dict(leaves(config, WITHOUT_EFFECT))


def version_settings(record: Record) -> dict[str, Any]:
    """Versions, commit and device of a record, dotted."""
    return dict(leaves({key: record[key] for key in _ENVIRONMENT if key in record}))


def results_of(record: Record) -> dict[str, float]:
    """The metrics of a record, the score first and the costs last."""
    found = {key: value for key, value in record.items() if "/" in key and _is_number(value)}
    order = ("score", "teacher", "student", "attention", "time", "memory", "hw")
    place = {name: index for index, name in enumerate(order)}
    return dict(sorted(found.items(), key=lambda item: place.get(item[0].split("/")[0], 4)))


def text_of(value: Any) -> str:
    """A value for people: "-" where there is none."""
    if value is ABSENT:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _identity(record: Record) -> dict[str, Any]:
    """Axes, seed and overrides; an override under its key, as in a configuration."""
    found = {key: record[key] for key in _IDENTITY[:-1]}
    for text in record.get(OVERRIDES, ()):
        key, _, value = text.partition("=")
        found[key] = value
    return found


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    return [each for each in _paired(first, second) if each.first != each.second]


def _paired(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    keys = dict.fromkeys([*first, *second])
    return [Difference(key, first.get(key, ABSENT), second.get(key, ABSENT)) for key in keys]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
