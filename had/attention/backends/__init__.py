"""Implementations of Hamming attention and the choice among them."""

from __future__ import annotations

import logging
from functools import cache

from had.attention.backends.base import AttentionCall, Backend
from had.attention.backends.eager import EagerBackend, ReferenceBackend
from had.attention.backends.triton_rows import TritonRowsBackend

__all__ = ["BACKENDS", "AttentionCall", "Backend", "choose_backend"]

log = logging.getLogger(__name__)

BACKENDS: dict[str, Backend] = {
    backend.name: backend for backend in (TritonRowsBackend(), EagerBackend(), ReferenceBackend())
}
"""By name, fastest first: `auto` takes the first that supports the call."""


def choose_backend(name: str, call: AttentionCall) -> Backend:
    """The backend called `name`, or for "auto" the fastest that supports the call.

    Raises:
        ValueError: the name is unknown, or that backend does not support the call.
    """
    if name == "auto":
        chosen = next(backend for backend in BACKENDS.values() if backend.supports(call))
        _announce(chosen.name, call.query.device.type)
        return chosen
    if name not in BACKENDS:
        raise ValueError(f"backend {name!r} is unknown; there are auto, {', '.join(BACKENDS)}")
    if not BACKENDS[name].supports(call):
        raise ValueError(
            f"backend {name!r} does not support this call; backend=auto picks one that does"
        )
    return BACKENDS[name]


@cache
def _announce(name: str, device: str) -> None:
    log.info("attention backend on %s: %s", device, name)
