r"""Decoding over a long cache on a GPU: Hamming attention from bits against dense attention.

    python benchmarks/gpu_decode.py --out results/performance/gpu_decode.json
    python benchmarks/gpu_decode.py --from results/performance/gpu_decode.json \
        --fill docs/performance.md

One query token, bfloat16 values, random data. Contenders take turns in one process, over sets of
inputs that together exceed the L2 cache; the median of the rounds is reported, as replayed CUDA
graphs and as plain calls. Nothing is timed before the output has been compared with a float64
reference. Shares are of the copy bandwidth measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_steps import CASES, TARGETS, Case, Inputs, make_inputs, student_case
from gpu_timing import Timing, copy_bandwidth, measure
from report import fill, markdown, write_json
from rich.console import Console
from torch import Tensor
from torch.nn.attention import SDPBackend

from had.attention.backends import BACKENDS, PackedCall, choose_packed_backend
from had.attention.bits import unpack_signs

FLEX = "flexattention"
DENSE = ("sdpa flash", "sdpa cudnn", "split-kv triton", FLEX)
OURS, PIPELINE, ORACLE = "hamming", "hata-style", "eager"
_ROTATED_BYTES = 200e6  # touched by all sets together, several times the L2 cache
_DENSE_ERROR = 2e-2  # of one dense baseline from another in norm: bfloat16 rounds to 4e-3
_EAGER_SCORES = 2**20  # more would only show that plain PyTorch is slow


def reference(call: PackedCall) -> Tensor:
    """The definition in float64, sequence by sequence: a stable sort, no kernel of ours."""
    rows = []
    shared = call.query.shape[1] // call.key.shape[1]
    assert isinstance(call.n, int)
    for b in range(len(call.query)):
        query = unpack_signs(call.query[b], call.head_dim, torch.float16)
        key = unpack_signs(call.key[b], call.head_dim, torch.float16)
        scores = (query @ key.repeat_interleave(shared, 0).mT)[:, 0].float()
        if call.mask is not None:
            scores = scores.masked_fill(~call.mask[b, 0], -torch.inf)
        best = scores.sort(dim=-1, descending=True, stable=True)
        weights = torch.softmax(best.values[:, : call.n].double() * call.gain, dim=-1)
        value = call.value[b].float().repeat_interleave(shared, 0)
        index = best.indices[:, : call.n, None].expand(-1, -1, value.shape[-1])
        rows.append(torch.einsum("hn,hnv->hv", weights, value.gather(1, index).double()))
    return torch.stack(rows)[:, :, None]


def check(case: Case, inputs: Inputs, attend: Callable[[PackedCall], Tensor]) -> float:
    """Largest error of the output, in units of the rounding of bfloat16.

    Raises:
        SystemExit: it is not explained by that rounding, or a repetition differs.
    """
    output, expected = attend(inputs.packed), reference(inputs.packed)
    allowed = 2**-8 * expected.abs() + 1e-4
    error = float(((output.double() - expected).abs() / allowed).max())
    if not error <= 1 or not torch.equal(output, attend(inputs.packed)):
        raise SystemExit(f"{case.name()}: wrong output, {error:.2f} of what rounding allows")
    return error


def contenders(case: Case, sets: list[Inputs]) -> dict[str, list[Callable[[], Tensor]]]:
    """By name, a step for every set."""
    from gpu_baselines import hata_style, sdpa, split_kv

    ours = choose_packed_backend("auto", sets[0].packed)
    steps: dict[str, list[Callable[[], Tensor]]] = {OURS: []}
    for x in sets:
        dense = (x.query, x.key, x.value)
        packed = x.packed
        steps[OURS].append(partial(ours.attend_packed, packed))
        if case.mixed:
            continue
        bits = (packed.query, packed.key, *dense)
        own = {PIPELINE: partial(hata_style, *bits, n=case.n)}
        own[DENSE[0]] = partial(sdpa, SDPBackend.FLASH_ATTENTION, *dense)
        own[DENSE[1]] = partial(sdpa, SDPBackend.CUDNN_ATTENTION, *dense)
        own[DENSE[2]] = partial(split_kv, *dense)
        if case.batch * case.heads * case.keys <= _EAGER_SCORES:
            own[ORACLE] = partial(BACKENDS[ORACLE].attend_packed, packed)
        for name, step in own.items():
            steps.setdefault(name, []).append(step)
    if case in TARGETS and (flex := compiled_flex(case, sets[0])):
        steps[FLEX] = [partial(flex, x.query, x.key, x.value) for x in sets]
    return steps


def compiled_flex(case: Case, x: Inputs) -> Callable[..., Tensor] | None:
    """FlexAttention for a case; None, with a note, if it fails or differs from flash attention."""
    from gpu_baselines import FlexDecoding, sdpa

    dense = (x.query, x.key, x.value)
    try:
        flex = FlexDecoding(case.keys, "cuda")
        wanted = sdpa(SDPBackend.FLASH_ATTENTION, *dense).float()
        error = float((flex(*dense).float() - wanted).norm() / wanted.norm())
    except Exception as failure:
        Console(stderr=True).print(f"{case.name()}: no {FLEX}: {failure}"[:500], markup=False)
        return None
    if error < _DENSE_ERROR:
        return flex
    Console(stderr=True).print(f"{case.name()}: no {FLEX}: it differs by {error:.1e}")
    return None


def run(case: Case, rounds: int, bandwidth: float) -> dict[str, Any]:
    """Check and measure one case."""
    count = max(2, min(48, int(_ROTATED_BYTES / case.floor_bytes()) + 1))
    sets = [make_inputs(case, seed) for seed in range(count)]
    ours = choose_packed_backend("auto", sets[0].packed)
    error = check(case, sets[0], ours.attend_packed)
    times = measure(contenders(case, sets), rounds)
    record: dict[str, Any] = {"case": asdict(case), "name": case.name(), "backend": ours.name}
    record |= {"error": error, "sets": count, "floor_us": 1e6 * case.floor_bytes() / bandwidth}
    record["times"] = {name: _with_share(case, name, t, bandwidth) for name, t in times.items()}
    return record


def _with_share(case: Case, name: str, timing: Timing, bandwidth: float) -> dict[str, Any]:
    """A timing and, where bytes are known, its share of the copy bandwidth in a graph."""
    needed = {OURS: case.floor_bytes()} | dict.fromkeys(DENSE, case.dense_bytes())
    record = asdict(timing)
    if name in needed:
        record["share"] = needed[name] / bandwidth / (timing.graph * 1e-6)
    return record


def tables(record: dict[str, Any]) -> str:
    """The results as Markdown."""
    header = ["step", "floor us", "hamming us", "share", "best dense us", "share", "ratio"]
    header += ["HATA-style us", "ratio", "plain: hamming us", "plain: best dense us"]
    rows = [_row(result) for result in record["results"]]
    note = (
        f"{record['device']}, torch {record['torch']}, triton {record['triton']}; copy bandwidth "
        f"{record['copy_bandwidth'] / 1e12:.2f} TB/s; medians of {record['rounds']} CUDA-graph "
        "replays, microseconds a call; shares of the copy bandwidth."
    )
    return f"{note}\n\n{markdown(header, rows)}\n\n{_dense_table(record)}"


def _dense_table(record: dict[str, Any]) -> str:
    """Every dense baseline by itself, in replayed graphs."""
    cases = [result for result in record["results"] if any(x in result["times"] for x in DENSE)]
    rows = [[case["name"], *(_dense_cell(case["times"].get(x)) for x in DENSE)] for case in cases]
    return markdown(["dense baselines, us and share", *DENSE], rows)


def _dense_cell(times: dict[str, Any] | None) -> str:
    return "-" if times is None else f"{times['graph']:.1f} ({times['share']:.0%})"


def _row(result: dict[str, Any]) -> list[str]:
    times = result["times"]
    ours = times[OURS]
    row = [result["name"], f"{result['floor_us']:.1f}", f"{ours['graph']:.1f}"]
    row.append(f"{ours['share']:.0%}")
    dense = [times[name] for name in DENSE if name in times]
    if not dense:
        return [*row, *["-"] * 5, f"{ours['plain']:.0f}", "-"]
    best = min(dense, key=lambda t: t["graph"])
    pipeline = times[PIPELINE]["graph"]
    row += [f"{best['graph']:.1f}", f"{best['share']:.0%}", f"{best['graph'] / ours['graph']:.1f}x"]
    row += [f"{pipeline:.1f}", f"{pipeline / ours['graph']:.1f}x", f"{ours['plain']:.0f}"]
    return [*row, f"{min(t['plain'] for t in dense):.0f}"]


def measure_all(options: argparse.Namespace) -> dict[str, Any]:
    """Run the cases; what is done is written even if a later one fails."""
    import triton

    bandwidth = copy_bandwidth()
    record: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    record |= {"triton": triton.__version__, "rounds": options.rounds}
    record |= {"copy_bandwidth": bandwidth, "results": []}
    student = [student_case(options.codes, options.n)] if options.codes else []
    for case in [*TARGETS, *student, *CASES[len(TARGETS) :]]:
        torch.cuda.empty_cache()
        try:
            record["results"].append(run(case, options.rounds, bandwidth))
        except (Exception, SystemExit) as error:
            Console(stderr=True).print(f"{case.name()}: {error}")
        if options.out:
            write_json(options.out, record)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--codes", type=Path, help="queries and keys of a student: one more case")
    parser.add_argument("--n", type=int, default=512, help="keys that its queries keep")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    parser.add_argument("--from", dest="source", type=Path, help="results, instead of measuring")
    parser.add_argument("--fill", type=Path, help="document whose table is replaced")
    parser.add_argument("--block", default="gpu decode", help="which of its tables")
    options = parser.parse_args()
    if options.source is None and not torch.cuda.is_available():
        sys.exit("no CUDA device: nothing to measure")
    record = json.loads(options.source.read_text()) if options.source else measure_all(options)
    text = tables(record)
    Console(width=200).print(text, markup=False)
    if options.fill:
        fill(options.fill, options.block, text)


if __name__ == "__main__":
    main()
