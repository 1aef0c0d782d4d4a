"""YAML with line numbers: what every table and spec of the accelerator model is read through.

PyYAML keeps the last of two equal keys without a word, and forgets where a value stood. Both
matter in a table of constants, so this reader refuses duplicates and remembers lines.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

from had.errors import HadError

# The same language read by the C library, many times as fast, where PyYAML was built with it.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Section:
    """One mapping of a YAML file, with the line of every key.

    Args:
        path: The file, for messages.
        line: Line of the mapping, counted from 1.
        values: The entries: scalars, lists, or further sections.
        lines: Line of each key.
    """

    def __init__(
        self, path: Path, line: int, values: dict[str, Any], lines: dict[str, int]
    ) -> None:
        self.path, self.line, self.values, self.lines = path, line, values, lines

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def error(self, message: str, key: str | None = None) -> HadError:
        """Return an error that names the file and the line of `key` (or of the section)."""
        line = self.line if key is None else self.lines.get(key, self.line)
        return HadError(f"{self.path}:{line}: {message}")

    def only(self, allowed: Iterable[str]) -> None:
        """Refuse keys that nobody reads.

        Raises:
            HadError: A key is not in `allowed`.
        """
        names = sorted(allowed)
        for key in self:
            if key not in names:
                raise self.error(f"unknown key '{key}'; known: {', '.join(names)}", key)

    def get(self, key: str) -> Any:
        """Return the raw value of a key.

        Raises:
            HadError: The key is missing.
        """
        if key not in self.values:
            raise self.error(f"missing key '{key}'")
        return self.values[key]

    def text(self, key: str) -> str:
        """Return a non-empty string.

        Raises:
            HadError: The key is missing, empty, or not text.
        """
        value = self.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"'{key}' must be text, found {value!r}", key)
        return value.strip()

    def number(self, key: str, minimum: float = 0.0) -> float:
        """Return a finite number no smaller than `minimum`.

        Raises:
            HadError: The key is missing, not a number, or too small.
        """
        value = self.get(key)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise self.error(f"'{key}' must be a number, found {value!r}", key)
        if value < minimum:
            raise self.error(f"'{key}' must be at least {minimum:g}, found {value!r}", key)
        return float(value)

    def integer(self, key: str, minimum: int = 1) -> int:
        """Return a whole number no smaller than `minimum`.

        Raises:
            HadError: The key is missing, not whole, or too small.
        """
        value = self.number(key, minimum)
        if value != int(value):
            raise self.error(f"'{key}' must be a whole number, found {value!r}", key)
        return int(value)

    def boolean(self, key: str) -> bool:
        """Return a truth value.

        Raises:
            HadError: The key is missing, or neither true nor false.
        """
        value = self.get(key)
        if not isinstance(value, bool):
            raise self.error(f"'{key}' must be true or false, found {value!r}", key)
        return value

    def section(self, key: str) -> Section:
        """Return a nested mapping.

        Raises:
            HadError: The key is missing or no mapping.
        """
        value = self.get(key)
        if not isinstance(value, Section):
            raise self.error(f"'{key}' must be a mapping, found {value!r}", key)
        return value

    def items(self, key: str) -> list[Any]:
        """Return a list.

        Raises:
            HadError: The key is missing or no list.
        """
        value = self.get(key)
        if not isinstance(value, list) or not value:
            raise self.error(f"'{key}' must be a list that is not empty", key)
        return value


def read_yaml(path: Path) -> Section:
    """Read a YAML file whose top level is a mapping.

    Raises:
        HadError: The file is missing, is no valid YAML, repeats a key, or is no mapping.
    """
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=LOADER)
    except OSError as error:
        raise HadError(f"cannot read {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise HadError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(node, yaml.MappingNode):
        raise HadError(f"{path}:1: the file must hold a mapping")
    return _section(path, node)


def _section(path: Path, node: yaml.MappingNode) -> Section:
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if key in lines:
            raise HadError(f"{path}:{line}: duplicate key '{key}', first on line {lines[key]}")
        values[key], lines[key] = _value(path, value_node), line
    return Section(path, node.start_mark.line + 1, values, lines)


def _value(path: Path, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _section(path, node)
    if isinstance(node, yaml.SequenceNode):
        return [_value(path, item) for item in node.value]
    return _scalar(node)


def _scalar(node: yaml.Node) -> Any:
    return SafeConstructor().construct_object(node)
