"""The resolved values of a configuration, as rules look at them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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


def is_sharded(strategy: Any) -> bool:
    """Whether a trainer's strategy, a name or a mapping, gives each process a part of a student."""
    return isinstance(strategy, Mapping) and "Sharded" in str(strategy.get("_target_"))
