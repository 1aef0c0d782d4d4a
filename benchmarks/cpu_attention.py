"""Time of Hamming attention on the CPU against dense attention and a NumPy pipeline.

    python benchmarks/cpu_attention.py --out results/performance/cpu_attention.json
    python benchmarks/cpu_attention.py --read results/performance/cpu_attention.json \\
        --write docs/performance.md

Contenders run in turns in one process on the same random tensors. One thread is timed by the
process's CPU time, which other programs on the machine lengthen less than wall time; more threads
by wall time. Each result is compared with the oracle's before anything is timed. The second form
writes the table of a stored run between the markers of a document.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from cpu_steps import CASES, DENSE, FLOOR, Case, Layer, Step, numpy_attention
from rich.console import Console
from rich.markdown import Markdown

from had.attention.backends import BACKENDS, AttentionCall

BEGIN, END = "<!-- cpu attention: begin -->", "<!-- cpu attention: end -->"
CPU, REFERENCE = BACKENDS["cpu"], BACKENDS["reference"]
FLOATS, BITS, NUMPY = "ours", "ours, from bits", "NumPy"


@dataclass
class Result:
    """Milliseconds of one contender in one case; `ratio` is the baseline's time over this one's."""

    case: str
    shape: str
    threads: int
    contender: str
    rounds: int
    least: float
    median: float
    ninth_decile: float
    ratio: float
    gigabytes_per_second: float | None = None


def contenders(layer: Layer) -> dict[str, Step]:
    """What is timed, by name. Decoding reads a cache of bits; elsewhere a user has floats."""
    call, packed = layer.call(), layer.packed()
    steps: dict[str, Step] = {BITS: lambda: CPU.attend_packed(packed)}
    if layer.case.queries > 1:
        steps[FLOATS] = lambda: CPU.attend(call)
    if layer.case.baseline == DENSE:
        steps[DENSE] = layer.dense
    if not layer.case.causal:
        steps[NUMPY] = numpy_attention(layer, packed)
    return steps


def check(layer: Layer) -> None:
    """Compare with the oracle on the first and last rows.

    Raises:
        SystemExit: an output differs by more than float32's rounding.
    """
    call = layer.call()
    rows = torch.arange(layer.case.queries)
    rows = torch.cat([rows[:16], rows[16:][-16:]])
    mask = None if layer.mask is None else layer.mask[:, :, rows]
    part = AttentionCall(
        call.query[:, :, rows], call.key, call.value, call.n, call.gain, mask, signs=True
    )
    expected = REFERENCE.attend(part)
    for output in (CPU.attend(call), CPU.attend_packed(layer.packed())):
        if not torch.allclose(output[:, :, rows], expected, rtol=1e-5, atol=1e-5):
            raise SystemExit(f"{layer.case.name} ({layer.case.shape}) is wrong: nothing timed")


def clock(threads: int) -> Callable[[], float]:
    return time.process_time if threads == 1 else time.perf_counter


def measure(steps: dict[str, Step], threads: int, rounds: int, seconds: float) -> dict[str, list]:
    """Milliseconds of every step, in turns: `rounds`, or what fits into `seconds` (5 or more)."""
    now, times, start = clock(threads), {name: [] for name in steps}, time.perf_counter()
    for step in steps.values():
        step()
    for round_ in range(rounds):
        if round_ >= 5 and time.perf_counter() - start > seconds:
            break
        # Back and forth, so that nobody always follows the one that leaves the caches worst.
        for name, step in list(steps.items())[:: -1 if round_ % 2 else 1]:
            before = now()
            step()
            times[name].append(1e3 * (now() - before))
    return times


def streaming(threads: int) -> float:
    """GB/s at which a sum reads 512 MB, the best of ten."""
    x = torch.ones(2**27)
    times = measure({"sum": x.sum}, threads, 10, 60.0)["sum"]
    return 4e-6 * x.numel() / min(times)


def results(case: Case, threads: int, rate: float, options: argparse.Namespace) -> list[Result]:
    layer = Layer.random(case)
    check(layer)
    times = measure(contenders(layer), threads, options.rounds, options.seconds)
    cache = 4e-6 * case.groups * case.keys * 2 * case.head_dim  # MB of float32 keys and values
    if case.baseline == FLOOR:
        times[FLOOR] = [cache / rate]
    base = min(times[case.baseline])
    found = []
    for name, each in times.items():
        result = Result(case.name, case.shape, threads, name, len(each), *summary(each), 0.0)
        result.ratio = base / result.least
        if case.queries == 1:
            result.gigabytes_per_second = _bytes(case, name) / result.least
        found.append(result)
    return found


def summary(times: list[float]) -> tuple[float, float, float]:
    return min(times), statistics.median(times), sorted(times)[int(0.9 * (len(times) - 1))]


def _bytes(case: Case, contender: str) -> float:
    """Megabytes that a decode has to read: dense keys and values, or key bits and kept values."""
    if contender in (DENSE, FLOOR):
        return 4e-6 * case.groups * case.keys * 2 * case.head_dim
    kept = 4e-6 * case.heads * case.n * case.head_dim
    return 1e-6 * case.groups * case.keys * case.head_dim / 8 + kept


def markdown(record: dict) -> str:
    """The table of a run."""
    lines = [
        "| layer | threads | | least ms | median ms | ratio | GB/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in record["results"]:
        rate = row["gigabytes_per_second"]
        lines.append(
            f"| {row['case']}: {row['shape']} | {row['threads']} | {row['contender']} "
            f"| {row['least']:.3f} | {row['median']:.3f} | {row['ratio']:.1f} "
            f"| {'' if rate is None else f'{rate:.1f}'} |"
        )
    rates = ", ".join(f"{k}: {v:.1f} GB/s" for k, v in record["streaming"].items())
    versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
    lines += ["", f"{record['cpu']}; {versions}; streaming read by threads: {rates}."]
    return "\n".join(lines)


def write(document: Path, text: str) -> None:
    """Replace what lies between the document's markers."""
    before, _, rest = document.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    document.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    found = [facts.get(name, "?") for name in ("model name", "cpu family", "model")]
    return f"{found[0]} (family {found[1]}, model {found[2]})"


def run(options: argparse.Namespace) -> dict:
    import numba

    versions = {"torch": torch.__version__, "numba": numba.__version__, "numpy": np.__version__}
    record: dict = {"cpu": cpu_name(), "versions": versions, "streaming": {}, "results": []}
    chosen = [case for case in CASES if options.only in f"{case.name} {case.shape}"]
    for threads in options.threads:
        torch.set_num_threads(threads)
        rate = record["streaming"][str(threads)] = streaming(threads)
        with torch.inference_mode():
            for case in chosen:
                record["results"] += [asdict(r) for r in results(case, threads, rate, options)]
    return record


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=50, help="of every contender")
    parser.add_argument("--seconds", type=float, default=20.0, help="after which a case ends early")
    parser.add_argument("--only", default="", help="part of a case's name or shape")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    parser.add_argument("--read", type=Path, help="a stored run instead of a new one")
    parser.add_argument("--write", type=Path, help="put the table into this document")
    return parser.parse_args()


def main() -> None:
    options = parse()
    record = json.loads(options.read.read_text()) if options.read else run(options)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=1) + "\n")
    if options.write:
        write(options.write, markdown(record))
    Console(width=140).print(Markdown(markdown(record)))


if __name__ == "__main__":
    main()
