"""Selection alone on a GPU: `topn_indices` against torch.topk on the same uint8 scores.

    python benchmarks/gpu_selection.py --out results/performance/gpu_selection.json

Scores are distributed as match counts of random 128-bit codes. torch.topk leaves open which of
equal scores it takes; the stable sort takes the lowest index first, as `topn_indices` does.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_timing import copy_bandwidth, measure
from report import fill, markdown, write_json
from rich.console import Console
from torch import Tensor

from had.attention.select import topn_indices

SHAPES = ((64, 2**17, 512), (32, 2**17, 512), (256, 2**15, 512), (8, 2**20, 10485))
OURS, TOPK, SORT = "topn_indices", "torch.topk", "stable sort"


def make_scores(rows: int, count: int) -> Tensor:
    return (torch.randn(rows, count, device="cuda") * 32**0.5 + 64).round().to(torch.uint8)


def stable_sort(scores: Tensor, n: int) -> Tensor:
    """The definition: the n largest, lowest index first among equals, in ascending order."""
    return scores.argsort(dim=-1, descending=True, stable=True)[:, :n].sort(dim=-1).values


def run(shape: tuple[int, int, int], rounds: int, bandwidth: float) -> dict[str, Any]:
    """Check and measure one shape."""
    rows, count, n = shape
    sets = [make_scores(rows, count) for _ in range(max(2, int(200e6 / (rows * count)) + 1))]
    for scores in sets[:2]:
        if not torch.equal(topn_indices(scores, n), stable_sort(scores, n)):
            raise SystemExit(f"{shape}: wrong selection, nothing timed")
    functions = {OURS: topn_indices, TOPK: partial(torch.topk, sorted=False), SORT: stable_sort}
    steps = {name: [partial(f, x, n) for x in sets] for name, f in functions.items()}
    times = {name: asdict(timing) for name, timing in measure(steps, rounds).items()}
    return {"shape": shape, "floor_us": 1e6 * rows * count / bandwidth, "times": times}


def tables(record: dict[str, Any]) -> str:
    """The results as Markdown."""
    header = ["rows x scores, n", "floor us", "topn_indices us", "torch.topk us", "ratio"]
    rows = []
    for result in record["results"]:
        count, length, n = result["shape"]
        ours, topk, sort = (result["times"][name]["graph"] for name in (OURS, TOPK, SORT))
        row = [f"{count} x {length}, {n}", f"{result['floor_us']:.1f}", f"{ours:.1f}"]
        rows.append([*row, f"{topk:.1f}", f"{topk / ours:.1f}x", f"{sort:.0f}"])
    note = (
        f"{record['device']}, torch {record['torch']}; medians of {record['rounds']} CUDA-graph "
        "replays, microseconds a call; floor: the scores read at the copy bandwidth."
    )
    return f"{note}\n\n{markdown([*header, 'stable sort us'], rows)}"


def measure_all(options: argparse.Namespace) -> dict[str, Any]:
    bandwidth = copy_bandwidth()
    record: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    record |= {"rounds": options.rounds, "copy_bandwidth": bandwidth}
    record["results"] = [run(shape, options.rounds, bandwidth) for shape in SHAPES]
    if options.out:
        write_json(options.out, record)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    parser.add_argument("--from", dest="source", type=Path, help="results, instead of measuring")
    parser.add_argument("--fill", type=Path, help="document whose table is replaced")
    options = parser.parse_args()
    if options.source is None and not torch.cuda.is_available():
        sys.exit("no CUDA device: nothing to measure")
    record = json.loads(options.source.read_text()) if options.source else measure_all(options)
    Console(width=200).print(tables(record), markup=False)
    if options.fill:
        fill(options.fill, "gpu selection", tables(record))


if __name__ == "__main__":
    main()
