"""Implementations of Hamming attention and the choice among them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

from had.attention.backends.base import AttentionCall, Backend, PackedCall
from had.attention.backends.cpu import CpuBackend
from had.attention.backends.cuda_decode import CudaDecodeBackend
from had.attention.backends.eager import EagerBackend, ReferenceBackend
from had.attention.backends.merging import MergingBackend
from had.attention.backends.triton_decode import TritonDecodeBackend
from had.attention.backends.triton_levels import TritonLevelsBackend
from had.attention.backends.triton_rows import TritonRowsBackend

__all__ = [
    "BACKENDS",
    "AttentionCall",
    "Backend",
    "PackedCall",
    "choose_backend",
    "choose_packed_backend",
]

log = logging.getLogger(__name__)

BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        CudaDecodeBackend(),
        TritonDecodeBackend(),
        TritonRowsBackend(),
        TritonLevelsBackend(),
        CpuBackend(),
        EagerBackend(),
        ReferenceBackend(),
    )
}
"""By name, fastest first: `auto` takes the first that supports the call."""


_BESIDE_EXACT_KEYS: dict[str, Backend] = {
    name: backend if backend.takes_exact_keys else MergingBackend(backend)
    for name, backend in BACKENDS.items()
}
"""The same, each with what does beside it what it cannot do: to score some keys exactly."""


def choose_backend(name: str, call: AttentionCall) -> Backend:
    """The backend called `name`, or for "auto" the fastest that supports the call.

    Raises:
        ValueError: the name is unknown, or that backend does not support the call.
    """
    return _choose(
        BACKENDS,
        name,
        call.query.device.type,
        lambda backend: (call.exact is None or backend.takes_exact_keys) and backend.supports(call),
    )


def choose_packed_backend(name: str, call: PackedCall) -> Backend:
    """As `choose_backend`, among those that read bits, if need be of all but the exact keys."""
    readers = BACKENDS if call.exact is None else _BESIDE_EXACT_KEYS
    device = f"{call.query.device.type}, from bits"
    return _choose(readers, name, device, lambda reader: reader.supports_packed(call))


def _choose(
    backends: dict[str, Backend], name: str, where: str, supports: Callable[[Backend], bool]
) -> Backend:
    if name == "auto":
        chosen = next(backend for backend in backends.values() if supports(backend))
        _announce(chosen.name, where)
        return chosen
    if name not in backends:
        raise ValueError(f"backend {name!r} is unknown; there are auto, {', '.join(backends)}")
    if not supports(backends[name]):
        raise ValueError(
            f"backend {name!r} does not support this call; backend=auto picks one that does"
        )
    return backends[name]


@cache
def _announce(name: str, where: str) -> None:
    log.info("attention backend on %s: %s", where, name)
