"""HAD: distil pretrained transformers into students with one-bit queries and keys."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "BinaryKeyCache": "had.attention.cache",
    "binarize": "had.models.convert",
    "calibrate": "had.models.convert",
    "compose": "had.config.command_line",
    "decoding_graphs": "had.models.decoding_graphs",
    "save": "had.models.storage",
    "load_student": "had.models.storage",
    "train": "had.training",
}
__all__ = [
    "BinaryKeyCache",
    "__version__",
    "binarize",
    "calibrate",
    "compose",
    "decoding_graphs",
    "load_student",
    "save",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import the public functions on first use: `import had` stays light."""
    if name not in _LAZY:
        raise AttributeError(f"module 'had' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
