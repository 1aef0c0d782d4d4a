"""Tokens a second and memory of `generate()` with a long context: binary key cache against dense.

    python benchmarks/generation.py --out results/performance/generation.json
    python benchmarks/generation.py --from results/performance/generation.json \
        --write docs/performance.md

One Llama-shaped model with random weights, once as it is with PyTorch's attention and a dynamic
cache, and as a student with its binary key cache, launched kernel by kernel and by CUDA graphs. The
caches are filled with random keys and values in place of a prompt, so that decoding alone is timed;
all continue by the same number of tokens, greedily, in turns. The first new tokens, with which a
call sets up, are not counted. Every case is printed and written as soon as it is measured.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from report import fill, markdown, write_json
from rich.console import Console
from torch import Tensor
from transformers import (
    Cache,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    StoppingCriteria,
)

import had
from had.attention.module import recent_keys_of

BINARY, DENSE, GRAPHS = "binary", "dense", "binary, graphs"
_SETTING_UP = 3  # tokens: a graph is captured before the third


@dataclass(frozen=True)
class Case:
    """A batch and a context length.

    Attributes:
        batch: sequences.
        context: tokens in the cache before the first new one.
        n: keys a row of the student keeps.
        tokens: that are timed.
    """

    batch: int
    context: int
    n: int
    tokens: int

    def __str__(self) -> str:
        return f"B={self.batch}, {self.context // 1024}k, N={self.n}"


@dataclass(frozen=True)
class Contender:
    """A model, how an empty cache for it is made, and what its calls are made within."""

    model: PreTrainedModel
    cache: Callable[[], Cache]
    within: Callable[[PreTrainedModel], AbstractContextManager[Any]] = nullcontext


class Clock(StoppingCriteria):
    """Stops nothing: notes when the first new tokens are there."""

    began: float | None = None
    tokens = 0

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        self.tokens += 1
        if self.tokens == _SETTING_UP:
            synchronize(input_ids.device)
            self.began = time.perf_counter()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def build(layers: int, device: str) -> PreTrainedModel:
    """A Llama of 32 query and 8 key heads of 128, in bfloat16 on a GPU."""
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
    torch.manual_seed(0)
    with torch.device(device):  # random numbers come from there: a CPU takes 16 ns each
        model = LlamaForCausalLM(config)
    return model.to(torch.bfloat16 if device == "cuda" else torch.float32).eval()


def contenders(layers: int, n: int, binarization: str, device: str) -> dict[str, Contender]:
    """The model as it is, and as a student that shares its weights."""
    dense = build(layers, device)
    student = copy.deepcopy(dense, {id(weight): weight for weight in dense.parameters()})
    had.binarize(student, n=n, binarization=binarization)
    recent = recent_keys_of(student)

    def binary() -> Cache:
        return had.BinaryKeyCache(student.config, recent=recent)

    return {
        DENSE: Contender(dense, lambda: DynamicCache(config=dense.config)),
        BINARY: Contender(student, binary),
        GRAPHS: Contender(student, binary, had.decoding_graphs),
    }


def filled(contender: Contender, case: Case) -> Cache:
    """A cache after `context` random tokens, all layers."""
    model, cache = contender.model, contender.cache()
    config = model.config
    shape = (case.batch, config.num_key_value_heads, case.context, config.head_dim)
    for layer in range(config.num_hidden_layers):
        key, value = (torch.randn(shape, device=model.device, dtype=model.dtype) for _ in range(2))
        cache.update(key, value, layer)
    return cache


def run(contender: Contender, case: Case) -> tuple[float, float]:
    """Tokens a second of one call after a filled cache, and its peak memory in GiB (0 on CPUs)."""
    model, cache, clock = contender.model, filled(contender, case), Clock()
    ids = torch.randint(0, 1000, (case.batch, case.context + 1), device=model.device)
    on_gpu = model.device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with contender.within(model):
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=cache,
            max_new_tokens=case.tokens + _SETTING_UP,
            do_sample=False,
            stopping_criteria=[clock],
        )
    synchronize(model.device)
    assert clock.began is not None
    rate = case.batch * case.tokens / (time.perf_counter() - clock.began)
    return rate, torch.cuda.max_memory_allocated() / 2**30 if on_gpu else 0.0


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(case: Case, models: dict[str, Contender], rounds: int, limit: float) -> dict[str, Any]:
    """All ways of one case, in turns: medians of tokens a second, peak memory.

    Args:
        case: what is measured.
        models: the contenders.
        rounds: at most, after a first one that compiles kernels and is not counted.
        limit: seconds after which no further round begins.
    """
    end = time.perf_counter() + limit
    for each in models.values():
        run(each, replace(case, tokens=2))
    rates: dict[str, list[float]] = {name: [] for name in models}
    peaks: dict[str, float] = {}
    for turn in range(rounds):
        if turn and time.perf_counter() > end:
            break
        for name, each in models.items():
            rate, peaks[name] = run(each, case)
            rates[name].append(rate)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    memory = filled(models[BINARY], replace(case, context=1)).memory(case.context)
    return {
        "case": str(case),
        "tokens": case.tokens,
        "rounds": len(rates[BINARY]),
        "tokens_per_s": medians,
        "ratio": {name: medians[name] / medians[DENSE] for name in models if name != DENSE},
        "peak_gib": peaks,
        "cache_bytes": {BINARY: memory.binary, DENSE: memory.dense},
    }


def measure_all(options: argparse.Namespace) -> dict[str, Any]:
    """Run the cases; what is done is written even if a later one fails."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    record: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "layers": options.layers,
        "binarization": options.binarization,
        "cases": [],
    }
    console = Console(width=200)
    models = contenders(options.layers, options.n, options.binarization, device)
    for batch in options.batch:
        case = Case(batch, options.context, options.n, options.tokens)
        try:
            record["cases"].append(measure(case, models, options.rounds, options.seconds))
        except Exception as error:
            Console(stderr=True).print(f"{case}: {error}", markup=False)
            continue
        console.print(" | ".join(row(record["cases"][-1])), markup=False)
        if options.out:
            write_json(options.out, record)
    return record


def row(result: dict[str, Any]) -> list[str]:
    """A line of the table."""
    rates, ratios = result["tokens_per_s"], result["ratio"]
    peaks, sizes = result["peak_gib"], result["cache_bytes"]
    return [
        result["case"],
        *(f"{rates[name]:.1f}" for name in rates),
        *(f"{ratios[name]:.2f}x" for name in ratios),
        *(f"{peaks[name]:.1f}" if peaks[name] else "-" for name in rates),
        *(f"{sizes[name] / 2**30:.2f}" for name in (DENSE, BINARY)),
    ]


def header(result: dict[str, Any]) -> list[str]:
    """What stands above such lines."""
    names = list(result["tokens_per_s"])
    return [
        "step",
        *(f"{name}: tokens/s" for name in names),
        *(f"{name} / {DENSE}" for name in result["ratio"]),
        *(f"{name}: peak GiB" for name in names),
        *(f"{name}: cache GiB" for name in (DENSE, BINARY)),
    ]


def table(record: dict[str, Any]) -> str:
    """The results as Markdown."""
    kind = f", binarization {record['binarization']}" if "binarization" in record else ""
    note = (
        f"{record['device']}, torch {record['torch']}, transformers {record['transformers']}; a "
        f"Llama of {record['layers']} layers, 32/8 heads, d=128{kind}; medians of calls of "
        "`generate`."
    )
    cases = record["cases"]
    return (
        f"{note}\n\n{markdown(header(cases[0]), [row(case) for case in cases])}" if cases else note
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the record here")
    parser.add_argument("--from", dest="source", type=Path, help="a record, instead of measuring")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page")
    parser.add_argument("--block", default="generation", help="of the page")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--context", type=int, default=32768)
    parser.add_argument("--n", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--binarization", default="had", help="of the student, e.g. had_recent")
    parser.add_argument("--tokens", type=int, default=32, help="timed in each call")
    parser.add_argument("--rounds", type=int, default=5, help="timed calls of each, at most")
    parser.add_argument(
        "--seconds", type=float, default=12, help="of a case, then no further round begins"
    )
    options = parser.parse_args()
    record = json.loads(options.source.read_text()) if options.source else measure_all(options)
    text = table(record)
    Console(width=200).print(text, markup=False)
    if options.write:
        fill(options.write, options.block, text)


if __name__ == "__main__":
    main()
