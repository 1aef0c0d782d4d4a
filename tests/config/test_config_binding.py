"""The keys of a group against the signature of the class it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from had.config.binding import misfits, targets


@dataclass(kw_only=True)
class Base:
    size: int
    name: str | None = None


@dataclass(kw_only=True)
class Target(Base):
    rate: float
    flag: bool = False
    names: Sequence[str] = ()
    extra: Mapping[str, Any] | None = None
    other: int | list[int] = 0


def anything(size: int, **others: Any) -> None:
    """Takes what it is given."""


def findings(target: object, **values: Any) -> list[str]:
    name = f"{__name__}.{target.__name__}"
    return list(misfits("group", {"_target_": name, **values}))


def test_fitting_values_pass() -> None:
    values = {"size": 1, "rate": 1, "names": ["a"], "extra": {"b": 1}, "other": [1], "name": None}
    assert findings(Target, **values) == []


def test_a_missing_value_is_not_judged() -> None:
    assert findings(Target, size="???", rate=0.5) == []


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"size": "x"}, "group.size='x': "),
        ({"size": 1.5}, "group.size=1.5: "),
        ({"size": True}, "group.size=True: "),
        ({"flag": 1}, "group.flag=1: "),
        ({"name": 3}, "takes str | null"),
        ({"rate": "fast"}, "takes float"),
        ({"extra": [1]}, "group.extra=[1]: "),
        ({"other": "x"}, "group.other='x': "),
        ({"sise": 3}, "group.sise: test_config_binding.Target has no such argument; did you"),
    ],
)
def test_a_misfit_is_named(values: dict[str, Any], sentence: str) -> None:
    (line,) = findings(Target, **{"size": 1, "rate": 0.5, **values})
    assert sentence in line


def test_a_required_argument_is_asked_for() -> None:
    (line,) = findings(Target, size=1)
    assert line.startswith("group.rate: ")
    assert "add +group.rate=<value>" in line
    assert findings(Target, size=1, _partial_=True) == []


def test_further_keywords_pass_where_the_target_takes_them() -> None:
    assert findings(anything, size=1, colour="red") == []
    assert len(findings(anything, size="x", colour="red")) == 1


def test_targets_are_found_at_any_depth() -> None:
    values = {"a": {"_target_": "x", "b": {"_target_": "y"}}, "c": {"d": {"_target_": "z"}}}
    assert [path for path, _ in targets(values)] == ["a", "a.b", "c.d"]
