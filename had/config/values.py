"""The resolved values of a configuration, as rules look at them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from omegaconf import MISSING

Values = dict[str, Any]
Rule = Callable[[Values], Iterable[str]]
"""Yields one sentence for each violation: the key, the value and the way out."""


def at(values: Values, key: str) -> Any:
    """The value at a dotted key; None where there is none."""
    node: Any = values
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return None if node == MISSING else node
