"""Timing on a GPU: contenders in turns in one process, as CUDA-graph replays and as plain calls."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Step = Callable[[], object]
_CALLS = 12  # of a graph at least: the launch of the graph is spread over them


@dataclass(frozen=True)
class Timing:
    """Microseconds of one call.

    Attributes:
        graph: median over replays of a CUDA graph of calls, the sets of inputs in turn.
        graph_range: smallest and largest.
        plain: median of a call launched from Python, between two events.
    """

    graph: float
    graph_range: tuple[float, float]
    plain: float


def measure(contenders: dict[str, Sequence[Step]], rounds: int) -> dict[str, Timing]:
    """Times of contenders, each a step for every set of inputs, taking turns in every round."""
    replays = {name: _captured(steps) for name, steps in contenders.items()}
    graphs: dict[str, list[float]] = {name: [] for name in contenders}
    plains: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 3):
        for name, steps in contenders.items():
            graph = microseconds(replays[name]) / (len(steps) * _turns(steps))
            plain = microseconds(steps[turn % len(steps)])
            if turn >= 3:
                graphs[name].append(graph)
                plains[name].append(plain)
    return {
        name: Timing(
            statistics.median(graphs[name]),
            (min(graphs[name]), max(graphs[name])),
            statistics.median(plains[name]),
        )
        for name in contenders
    }


def microseconds(step: Step) -> float:
    """Of one step, by CUDA events."""
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    step()
    after.record()
    after.synchronize()
    return 1e3 * before.elapsed_time(after)


def copy_bandwidth(gibibytes: int = 4, rounds: int = 20) -> float:
    """Bytes a second, read and written, of a device-to-device copy: the yardstick of all shares."""
    source = torch.empty(gibibytes * 2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    times = [microseconds(lambda: target.copy_(source)) for _ in range(rounds)]
    return 2 * source.numel() / (statistics.median(times) * 1e-6)


def _turns(steps: Sequence[Step]) -> int:
    """How often a graph goes through all steps."""
    return math.ceil(_CALLS / len(steps))


def _captured(steps: Sequence[Step]) -> Step:
    """The steps in sequence, again and again, as the replay of a graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for step in steps[:2]:
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(_turns(steps)):
            for step in steps:
                step()
    return graph.replay
