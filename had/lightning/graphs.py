"""Training steps as CUDA graphs: launching a small model's kernels takes longer than they run."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

_EAGER_RUNS = 2  # of a shape before it is captured: kernels get compiled, rare shapes stay eager

Parts = dict[str, Tensor]


class StepGraphs:
    """Runs forward and backward of a step; shapes that recur are captured once and replayed.

    After a call, the gradients lie on the parameters, and replace whatever was there. A graph holds
    tensors at fixed places: numbers that change from step to step must be tensors too.

    Args:
        compute: maps a batch to named scalars, among them "loss", on the device of the batch.
        parameters: those that get gradients.
    """

    def __init__(self, compute: Callable[[Any], Parts], parameters: Iterable[nn.Parameter]) -> None:
        self._compute = compute
        self._parameters = list(parameters)
        self._seen: Counter[Hashable] = Counter()
        self._graphs: dict[Hashable, _Captured] = {}
        self._pool: Any = None
        self._capturable = True

    def __call__(self, batch: Any, kind: Hashable) -> Parts:
        """Loss and parts of one step, detached.

        Args:
            batch: nested dicts of tensors on a CUDA device.
            kind: whatever else decides which operations run; each kind has graphs of its own.
        """
        key = (kind, _signature(batch))
        self._seen[key] += 1
        if key in self._graphs:
            return self._graphs[key].replay(batch)
        if self._capturable and self._seen[key] > _EAGER_RUNS:
            try:
                return self._capture(key, batch)
            except RuntimeError as error:
                self._capturable = False
                reason = str(error).partition("\n")[0]
                log.warning("this model cannot run as CUDA graphs, steps take longer: %s", reason)
        return self._run(batch)

    def _run(self, batch: Any) -> Parts:
        for parameter in self._parameters:
            parameter.grad = None
        parts = self._compute(batch)
        with torch.autocast("cuda", enabled=False):
            parts["loss"].backward()
        return {name: part.detach() for name, part in parts.items()}

    def _capture(self, key: Hashable, batch: Any) -> Parts:
        torch.cuda.synchronize()
        places = _map(torch.clone, batch)
        graph = torch.cuda.CUDAGraph()
        # Replays never overlap and gradients are used at once, so all graphs share their memory.
        with torch.cuda.graph(graph, pool=self._pool):
            parts = self._run(places)
        self._pool = graph.pool()
        gradients = [(p, p.grad) for p in self._parameters if p.grad is not None]
        self._graphs[key] = _Captured(graph, places, parts, gradients)
        return self._graphs[key].replay(batch)


class _Captured:
    """One captured step and the places where it reads and writes."""

    def __init__(
        self,
        graph: torch.cuda.CUDAGraph,
        places: Any,
        parts: Parts,
        gradients: list[tuple[nn.Parameter, Tensor]],
    ) -> None:
        self._graph, self._places, self._parts = graph, places, parts
        self._gradients = gradients

    def replay(self, batch: Any) -> Parts:
        _copy(self._places, batch)
        self._graph.replay()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        return self._parts


def _map(function: Callable[[Tensor], Any], batch: Any) -> Any:
    if isinstance(batch, dict):
        return {key: _map(function, value) for key, value in batch.items()}
    return function(batch)


def _signature(batch: Any) -> Hashable:
    """Shapes and dtypes of a nested dict of tensors."""
    if isinstance(batch, dict):
        return tuple((key, _signature(value)) for key, value in batch.items())
    return tuple(batch.shape), batch.dtype


def _copy(places: Any, batch: Any) -> None:
    if isinstance(batch, dict):
        for key, value in batch.items():
            _copy(places[key], value)
        return
    places.copy_(batch, non_blocking=True)
