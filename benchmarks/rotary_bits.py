"""How often a token finds its like among far keys once rotary embedding has turned both, by bits.

    python benchmarks/rotary_bits.py --out results/analysis/rotary_bits.json
    python benchmarks/rotary_bits.py --from results/analysis/rotary_bits.json \\
        --write docs/recipes.md

Queries and keys are random. One key has its query's content but another position; found means that
it is among the N keys with the most equal bits. Rotary embedding turns pairs of dimensions, the
first ones by up to a radian a token: far apart, their signs say nothing of the content any more,
and bits count alike whatever they say. Full precision can make such dimensions small instead.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from report import fill, markdown, write_json
from rich.console import Console
from torch import Tensor

from had.attention.select import topn_indices

HEAD_DIMS = (32, 64, 128)
THETAS = (1e4, 5e5, 1e6, 1e7)
CONTEXTS = (512, 1024, 4096, 16384)
RECENT = 16  # last keys, which are exact and not looked for by bits


def turned(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """Rotary embedding (arXiv 2104.09864) of x (..., D) at positions (...)."""
    half = x.shape[-1] // 2
    angles = positions[..., None] * theta ** (-torch.arange(half, dtype=torch.float64) / half)
    first, second = x.double().split(half, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def found(
    head_dim: int, theta: float, context: int, n: int, queries: int, random: torch.Generator
) -> float:
    """Share of queries at the end of a context whose like is among the N keys that they keep."""
    far = context - RECENT
    hits = []
    for _ in range(queries):
        keys = torch.randn(far, head_dim, generator=random)
        place = int(torch.randint(far, (), generator=random))
        query = turned(keys[place], torch.tensor(context), theta)
        key = turned(keys, torch.arange(far), theta)
        equal = ((key >= 0) == (query >= 0)).sum(-1).to(torch.uint8)
        hits.append(place in topn_indices(equal[None], n - RECENT)[0].tolist())
    return statistics.fmean(hits)


def measure(n: int, queries: int) -> dict[str, Any]:
    """Every head_dim and theta at every context."""
    random = torch.Generator().manual_seed(0)
    results = [
        {
            "head_dim": d,
            "theta": theta,
            "context": s,
            "found": found(d, theta, s, n, queries, random),
        }
        for d, theta, s in itertools.product(HEAD_DIMS, THETAS, CONTEXTS)
    ]
    return {"n": n, "recent": RECENT, "queries": queries, "results": results}


def table(record: dict[str, Any]) -> str:
    """The results as Markdown: a row for each head_dim and theta."""
    rows: dict[tuple[int, float], list[str]] = {}
    for each in record["results"]:
        row = rows.setdefault((each["head_dim"], each["theta"]), [])
        row.append(f"{100 * each['found']:.0f} %")
    contexts = [f"{s} keys" for s in sorted({each["context"] for each in record["results"]})]
    body = [[f"{d}", f"{theta:.0e}", *shares] for (d, theta), shares in rows.items()]
    return markdown(["head_dim", "rope_theta", *contexts], body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=64, help="keys that a query keeps")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    parser.add_argument("--from", dest="source", type=Path, help="results, instead of measuring")
    parser.add_argument("--write", type=Path, help="document whose table is replaced")
    options = parser.parse_args()
    if options.source:
        record = json.loads(options.source.read_text())
    else:
        record = measure(options.n, options.queries)
    Console().print(table(record), markup=False)
    if options.out:
        write_json(options.out, record)
    if options.write:
        fill(options.write, "rotary bits", table(record))


if __name__ == "__main__":
    main()
