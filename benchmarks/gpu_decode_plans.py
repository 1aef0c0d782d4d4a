"""The ways to divide a decoding step on a GPU, beside each other: which one wins for which shape.

    python benchmarks/gpu_decode_plans.py --out plans.json

The steps of `gpu_decode.py`, each by one kernel and by two; the mark is at the one that
`backend=auto` takes. Every output is compared with the float64 reference before it is timed; a way
that a shape does not fit has no time.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_decode import check
from gpu_steps import CASES, Case, Inputs, make_inputs
from gpu_timing import measure
from report import markdown, write_json
from rich.console import Console

from had.attention.backends.cuda_decode import plan_for
from had.attention.backends.cuda_decode_fused import OneKernel, fits
from had.attention.backends.cuda_decode_plan import TwoKernels
from had.attention.backends.cuda_decode_shape import Shape, processors_of
from had.errors import HadError

WAYS = {"one kernel": OneKernel, "two kernels": TwoKernels}
_SETS = 8  # of inputs, in turn


def plans(case: Case, x: Inputs) -> dict[str, Any]:
    """The ways that fit, by name, each with the right output."""
    shape, found = Shape.of(x.packed), {}
    for name, kind in WAYS.items():
        if kind is not TwoKernels and not fits(shape, processors_of(shape.device)):
            continue
        try:
            plan = kind(shape)
            check(case, x, plan.run)
        except (HadError, SystemExit) as error:
            Console(stderr=True).print(f"{case.name()}, {name}: {error}", markup=False)
        else:
            found[name] = plan
    return found


def run(case: Case, rounds: int) -> dict[str, Any]:
    """Microseconds of every way in a replayed graph."""
    sets = [make_inputs(case, seed) for seed in range(_SETS)]
    ways = plans(case, sets[0])
    steps = {name: [partial(plan.run, x.packed) for x in sets] for name, plan in ways.items()}
    taken = type(plan_for(Shape.of(sets[0].packed)))
    times = {name: asdict(timing) for name, timing in measure(steps, rounds).items()}
    return {
        "case": asdict(case),
        "name": case.name(),
        "taken": next(name for name, kind in WAYS.items() if kind is taken),
        "times": times,
    }


def row(result: dict[str, Any]) -> list[str]:
    """A line of the table."""
    times = result["times"]
    cells = [f"{times[name]['graph']:.1f}" if name in times else "-" for name in WAYS]
    marked = [
        f"*{cell}*" if name == result["taken"] else cell
        for name, cell in zip(WAYS, cells, strict=True)
    ]
    return [result["name"], *marked]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device: nothing to measure")
    results: list[dict[str, Any]] = []
    for case in (case for case in CASES if not case.mixed):
        torch.cuda.empty_cache()
        results.append(run(case, options.rounds))
        if options.out:
            write_json(options.out, {"device": torch.cuda.get_device_name(), "results": results})
    Console(width=200).print(markdown(["step, us", *WAYS], [row(r) for r in results]), markup=False)


if __name__ == "__main__":
    main()
