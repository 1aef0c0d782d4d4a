"""Time and memory of one distilled attention layer, forward and backward, backend by backend.

    python benchmarks/distil_attention.py --out distil_attention.json

Backends run in turns in one process on the same tensors; the median of the rounds is reported,
after every backend's output, divergence and gradients have been compared with the eager backend's.
The compiled baseline is the eager backend under torch.compile (--compile). Replaying a CUDA graph
(--graph) shows the kernels' own time where launching them on the host takes longer. Each layer is
printed and written as soon as it is measured; kernels of a new shape take seconds to compile, so
that no further layer is begun once --seconds are over.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from report import write_json
from rich.console import Console
from rich.table import Table
from torch import Tensor

from had.attention.backends import BACKENDS, AttentionCall, Backend
from had.attention.divergence import AttentionTarget
from had.attention.functional import binarize

SHAPES = [(64, 12, 128, 64), (256, 3, 197, 64), (32, 12, 512, 64), (64, 12, 128, 32)]
BASELINE = "eager"
Step = Callable[[], dict[str, Tensor]]


@dataclass
class Layer:
    """One layer's tensors: query and key units, value, gain, the teacher's, a mask."""

    leaves: dict[str, Tensor]
    target: AttentionTarget
    output_grad: Tensor
    mask: Tensor
    n: int
    signs: bool

    def step(self, distil: Callable[..., tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Forward and backward: output, divergence, gradients."""
        for leaf in self.leaves.values():
            leaf.grad = None
        call = AttentionCall(**self.leaves, n=self.n, mask=self.mask, signs=self.signs)
        output, divergence = distil(call, self.target, self.mask.transpose(2, 3))
        torch.autograd.backward([output, divergence], [self.output_grad, None])
        grads = {f"{k} gradient": x.grad for k, x in self.leaves.items() if x.grad is not None}
        return {"output": output.detach(), "divergence": divergence.detach(), **grads}


@dataclass
class Result:
    """Measurements of one backend on one layer."""

    backend: str
    units: str
    shape: tuple[int, ...]
    value_dtype: str
    milliseconds: float
    spread: tuple[float, float]
    extra_mebibytes: float
    errors: dict[str, float] = field(default_factory=dict)


def make_layer(
    shape: tuple[int, ...], n: int, dtype: torch.dtype, signs: bool, device: torch.device
) -> Layer:
    """Random tensors of a layer (B, H, T, D) whose sequences are padded from 3/4 of T upwards."""
    batch, heads, length, width = shape
    torch.manual_seed(0)

    def normal() -> Tensor:
        return torch.randn(batch, length, heads, width, device=device).transpose(1, 2)

    # A grid of eighths has exact products in any arithmetic: backends agree on every selected key.
    units = [binarize(x) if signs else (8 * x).round() / 8 for x in (normal(), normal())]
    leaves = {"query": units[0], "key": units[1], "value": normal().to(dtype)}
    leaves["gain"] = torch.full((heads, 1, 1), width**-0.5, device=device)
    lengths = torch.linspace(0.75 * length, length, batch, device=device).round()
    return Layer(
        {name: leaf.requires_grad_() for name, leaf in leaves.items()},
        AttentionTarget(normal().to(dtype), normal().to(dtype), width**-0.5),
        normal().to(dtype),
        (torch.arange(length, device=device) < lengths[:, None])[:, None, None, :],
        n,
        signs,
    )


def errors(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """Root mean square of the difference relative to that of the expected values, by name.

    Raises:
        SystemExit: a result is further from the baseline's than its type's rounding explains.
    """
    found = {}
    for name, value in expected.items():
        difference = (actual[name].double() - value.double()).square().mean().sqrt()
        found[name] = float(difference / value.double().square().mean().sqrt())
        bound = 1e-3 if value.dtype == torch.float32 else torch.finfo(value.dtype).eps
        if not found[name] < bound:
            raise SystemExit(f"{name} differs from {BASELINE} by {found[name]:.1e}: nothing timed")
    return found


def milliseconds(step: Step, device: torch.device) -> float:
    """Of one step, by CUDA events where there are any."""
    if device.type != "cuda":
        start = time.perf_counter()
        step()
        return 1e3 * (time.perf_counter() - start)
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    step()
    after.record()
    after.synchronize()
    return before.elapsed_time(after)


def extra_mebibytes(step: Step, device: torch.device) -> float:
    """Peak memory of a step beyond what was allocated before it; 0 without CUDA."""
    if device.type != "cuda":
        return 0.0
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def graphed(step: Step, device: torch.device) -> Step:
    """The step as a replayed CUDA graph: device time without the launches' cost on the host."""
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step()

    def replay() -> dict[str, Tensor]:
        graph.replay()
        return results

    return replay


def measure(
    layer: Layer, contenders: dict[str, Backend], options: argparse.Namespace
) -> list[Result]:
    """All contenders on one layer: checked first, then timed in turns."""
    steps: dict[str, Step] = {
        name: partial(layer.step, backend.distil) for name, backend in contenders.items()
    }
    if options.compile:
        compiled = torch.compile(contenders[BASELINE].distil, dynamic=False)
        steps["eager, compiled"] = partial(layer.step, compiled)
    results = {name: step() for name, step in steps.items()}
    found = {name: errors(result, results[BASELINE]) for name, result in results.items()}
    del results
    device = layer.mask.device
    memory = {name: extra_mebibytes(step, device) for name, step in steps.items()}
    if options.graph and "triton" in steps:
        name = "triton, CUDA graph"
        steps[name] = graphed(steps["triton"], device)
        memory[name], found[name] = memory["triton"], found["triton"]
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(options.rounds + 5):
        for name, step in steps.items():
            elapsed = milliseconds(step, device)
            if round_ >= 5:
                times[name].append(elapsed)
    shape = tuple(layer.leaves["query"].shape)
    return [
        Result(
            backend=name,
            units="signs" if layer.signs else "floats",
            shape=shape,
            value_dtype=str(layer.output_grad.dtype).removeprefix("torch."),
            milliseconds=statistics.median(times[name]),
            spread=(min(times[name]), max(times[name])),
            extra_mebibytes=memory[name],
            errors=found[name],
        )
        for name in steps
    ]


def table(results: list[Result]) -> Table:
    """One row a backend; the ratio is the eager backend's time over this one's."""
    view = Table()
    for heading in ("B, H, T, D", "units", "backend", "ms", "min .. max", "extra MiB"):
        view.add_column(heading, justify="left" if heading in ("units", "backend") else "right")
    view.add_column(f"time of {BASELINE} / this", justify="right")
    baseline = next(result for result in results if result.backend == BASELINE)
    for result in results:
        view.add_row(
            ", ".join(map(str, result.shape)),
            result.units,
            result.backend,
            f"{result.milliseconds:.3f}",
            f"{result.spread[0]:.3f} .. {result.spread[1]:.3f}",
            f"{result.extra_mebibytes:.0f}",
            f"{baseline.milliseconds / result.milliseconds:.1f}",
        )
    return view


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=20, help="timed rounds of every backend")
    parser.add_argument("--n", type=int, default=30, help="keys a row keeps")
    parser.add_argument("--dtype", default="bfloat16", help="of values and of the teacher")
    parser.add_argument("--compile", action="store_true", help="also eager under torch.compile")
    parser.add_argument("--graph", action="store_true", help="also replays of a CUDA graph")
    parser.add_argument("--shape", action="append", help="B,H,T,D instead of the default layers")
    parser.add_argument(
        "--seconds", type=float, default=20, help="after which no further layer is begun"
    )
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    return parser.parse_args()


def measure_layer(shape: tuple[int, ...], signs: bool, options: argparse.Namespace) -> list[Result]:
    """The backends that serve one layer."""
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    layer = make_layer(shape, options.n, dtype, signs, device)
    call = AttentionCall(**layer.leaves, n=options.n, mask=layer.mask, signs=signs)
    names = [name for name in ("triton", BASELINE) if BACKENDS[name].supports(call)]
    return measure(layer, {name: BACKENDS[name] for name in names}, options)


def measure_all(shapes: list[tuple[int, ...]], options: argparse.Namespace) -> None:
    """Measure layer by layer; what is done is printed and written even if a later one fails."""
    end = time.perf_counter() + options.seconds
    gpu = options.device.startswith("cuda")
    name = torch.cuda.get_device_name(options.device) if gpu else "CPU"
    record: dict[str, Any] = {"device": name, "torch": torch.__version__, "n": options.n}
    record["results"] = []
    console = Console(width=120)
    console.print(f"Distilled attention, forward and backward, on {name}")
    for shape, signs in product(shapes, (True, False)):
        if time.perf_counter() > end:
            console.print(f"{options.seconds:g} s are over: {shape} and further layers left out")
            return
        results = measure_layer(shape, signs, options)
        console.print(table(results))
        record["results"] += [asdict(result) for result in results]
        if options.out:
            write_json(options.out, record)


def main() -> None:
    options = parse()
    chosen = [tuple(map(int, text.split(","))) for text in options.shape or []]
    measure_all(chosen or SHAPES, options)


if __name__ == "__main__":
    main()
