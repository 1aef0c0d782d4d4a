"""Tokens a second and memory of `generate()` with a long context: binary key cache against dense.

    python benchmarks/generation.py --out results/performance/generation.json
    python benchmarks/generation.py --from FILE --write docs/performance.md

One Llama-shaped model with random weights, once as a student with its binary key cache, once as it
is with PyTorch's attention and a dynamic cache. The caches are filled with random keys and values
in place of a prompt, so that decoding alone is timed; both continue by the same number of tokens,
greedily, in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from report import fill, markdown, write_json
from transformers import Cache, DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedModel

import had


@dataclass(frozen=True)
class Case:
    """A context length.

    Attributes:
        batch: sequences.
        context: tokens in the cache before the first new one.
        n: keys a row of the student keeps.
    """

    batch: int
    context: int
    n: int

    def __str__(self) -> str:
        return f"B={self.batch}, {self.context // 1024}k, N={self.n}"


def build(layers: int, device: str) -> PreTrainedModel:
    """A Llama of 32 query and 8 key heads of 128, in bfloat16 on a GPU."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=4096,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        intermediate_size=8192,
        vocab_size=1024,
        max_position_embeddings=2**21,
        bos_token_id=None,
        eos_token_id=None,
    )
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return LlamaForCausalLM(config).to(device, dtype).eval()


def filled(cache: Cache, model: PreTrainedModel, case: Case) -> Cache:
    """The cache after `context` random tokens, all layers."""
    config = model.config
    shape = (case.batch, config.num_key_value_heads, case.context, config.head_dim)
    for layer in range(config.num_hidden_layers):
        key, value = (torch.randn(shape, device=model.device, dtype=model.dtype) for _ in range(2))
        cache.update(key, value, layer)
    return cache


def seconds(model: PreTrainedModel, make: Callable[[], Cache], case: Case, tokens: int) -> float:
    """Of one call of `generate` for so many new tokens, after a filled cache."""
    cache = filled(make(), model, case)
    ids = torch.randint(0, 1000, (case.batch, case.context + 1), device=model.device)
    mask = torch.ones_like(ids)
    synchronize(model.device)
    began = time.perf_counter()
    model.generate(
        ids, attention_mask=mask, past_key_values=cache, max_new_tokens=tokens, do_sample=False
    )
    synchronize(model.device)
    return time.perf_counter() - began


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def rate(model: PreTrainedModel, make: Callable[[], Cache], case: Case, tokens: int) -> float:
    """Tokens a second: what a call's tokens take beyond those of a call for a single one."""
    longer, shorter = (seconds(model, make, case, count) for count in (tokens + 1, 1))
    return case.batch * tokens / (longer - shorter)


def measure(case: Case, layers: int, tokens: int, rounds: int, device: str) -> dict[str, Any]:
    """Both ways of one case, in turns; medians of tokens a second, peak memory."""
    dense = build(layers, device)
    student = had.binarize(build(layers, device), n=case.n)
    contenders: dict[str, tuple[PreTrainedModel, Callable[[], Cache]]] = {
        "dense": (dense, lambda: DynamicCache(config=dense.config)),
        "binary": (student, lambda: had.BinaryKeyCache(student.config)),
    }
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    peaks: dict[str, float] = {}
    for turn in range(rounds + 1):
        for name, (model, make) in contenders.items():
            if device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            value = rate(model, make, case, tokens)
            if turn:  # the first compiles
                rates[name].append(value)
            if device == "cuda":
                peaks[name] = torch.cuda.max_memory_allocated() / 2**30
    medians = {name: statistics.median(values) for name, values in rates.items()}
    sizes = {name: filled(make(), model, case) for name, (model, make) in contenders.items()}
    memory = sizes["binary"].memory()
    return {
        "case": str(case),
        "tokens_per_s": medians,
        "ratio": medians["binary"] / medians["dense"],
        "peak_gib": peaks,
        "cache_bytes": {"binary": memory.binary, "dense": memory.dense},
    }


def table(record: dict[str, Any]) -> str:
    header = ("decoding", "dense tokens/s", "binary tokens/s", "ratio", "dense peak GiB", "binary")
    rows = [
        (
            each["case"],
            f"{each['tokens_per_s']['dense']:.1f}",
            f"{each['tokens_per_s']['binary']:.1f}",
            f"{each['ratio']:.2f}x",
            *(
                f"{each['peak_gib'][name]:.1f}" if each["peak_gib"] else "-"
                for name in ("dense", "binary")
            ),
        )
        for each in record["cases"]
    ]
    return f"{record['device']}, {record['layers']} layers.\n\n{markdown(header, rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the record here")
    parser.add_argument("--from", dest="given", type=Path, help="a record, instead of measuring")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--context", type=int, default=32768)
    parser.add_argument("--n", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if given.given:
        record = json.loads(given.given.read_text())
    else:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        cases = [Case(batch, given.context, given.n) for batch in given.batch]
        record = {
            "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
            "torch": torch.__version__,
            "layers": given.layers,
            "cases": [
                measure(case, given.layers, given.tokens, given.rounds, device) for case in cases
            ],
        }
    if given.out:
        write_json(given.out, record)
    print(table(record))  # noqa: T201
    if given.write:
        fill(given.write, "generation", table(record))


if __name__ == "__main__":
    main()
