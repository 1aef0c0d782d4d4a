"""Configurations as dotted keys and plain values, so that two can be compared."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

WITHOUT_EFFECT = (
    *("hydra", "run_dir", "resume", "paths", "logger", "callbacks"),
    *("trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.log_every_n_steps"),
    *("trainer.default_root_dir", "trainer.limit_val_batches", "cuda_graphs", "compile"),
)
"""Keys, with all below them, that change where a run goes and what it shows, not its results."""


def leaves(node: Any, without: Collection[str] = (), path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and plain values; an empty mapping or list is a value.

    Args:
        node: nested dicts and lists.
        without: keys that are left out, with all below them.
        path: of the node itself.
    """
    if path in without:
        return
    if not isinstance(node, dict | list) or not node:
        yield path, node
        return
    for key, child in node.items() if isinstance(node, dict) else enumerate(node):
        yield from leaves(child, without, f"{path}.{key}" if path else str(key))
