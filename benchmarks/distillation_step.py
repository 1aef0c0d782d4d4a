"""Tokens a second and peak memory of one distillation step of a language model, by context.

    python benchmarks/distillation_step.py --out results/performance/distillation_step.json
    python benchmarks/distillation_step.py --from FILE --write docs/performance.md

The model is conf/model/llama_30m.yaml with random weights. A step is the teacher's forward pass,
the student's, all losses (attention, hidden states, outputs), backward and AdamW, as
training runs it: bfloat16 autocast, replayed as a CUDA graph where it can be. `teacher` is a step
of the teacher's own training.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import yaml
from report import fill, markdown, write_json
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from had.attention.binarize import RELAXATIONS
from had.attention.module import set_relaxation
from had.config import StageWeights
from had.distill.losses import attention_loss, hidden_loss
from had.distill.pair import Alone, TeacherStudent
from had.lightning.graphs import StepGraphs
from had.lightning.parameters import narrow_linear_layers
from had.models.convert import binarize, record_attention
from had.paths import config_directory
from had.tasks.token_losses import token_cross_entropy, token_divergence

log = logging.getLogger(__name__)

TOKENS = 8192  # of the vocabulary


@dataclass(frozen=True)
class Case:
    """A step to measure.

    Attributes:
        context: tokens of a sequence.
        batch: sequences.
        kind: "teacher", or the relaxation of a student.
        recipe: of the student, in conf/binarization.
        backend: of the student's attention.
        stride: every stride-th query row is compared.
    """

    context: int
    batch: int
    kind: str = "sign"
    recipe: str = "had_plus"
    backend: str = "auto"
    stride: int = 1


CASES = [
    Case(1024, 16, "teacher"),
    Case(4096, 4, "teacher"),
    Case(1024, 16, "soft"),
    Case(1024, 16),
    Case(1024, 16, stride=16),
    Case(1024, 16, backend="triton_levels", stride=16),
    Case(1024, 16, recipe="had_recent", stride=16),
    Case(4096, 4, recipe="had_recent", stride=16),
    Case(16384, 1, recipe="had_recent", stride=16),
    Case(4096, 4, backend="eager"),
    Case(16384, 1, recipe="had_recent", backend="eager", stride=16),
]


@dataclass(frozen=True)
class Result:
    """What a case took."""

    case: Case
    milliseconds: float
    tokens_per_s: float
    peak_gib: float


def build(context: int, layers: int | None) -> LlamaForCausalLM:
    """The teacher, with fresh weights."""
    model = yaml.safe_load((config_directory() / "model" / "llama_30m.yaml").read_text())
    arguments = {**model["arguments"], "vocab_size": TOKENS, "max_position_embeddings": context}
    if layers is not None:
        arguments["num_hidden_layers"] = layers
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**arguments)).eval()


class Step:
    """Loss of a batch, as `had.lightning.module` forms it."""

    def __init__(self, case: Case, device: torch.device, layers: int | None) -> None:
        teacher = build(case.context, layers).to(device)
        if case.kind == "teacher":
            self.models: Alone | TeacherStudent = Alone(teacher)
            self.weights = StageWeights(attention=0, output=0, task=1)
            return
        student = binarize(
            copy.deepcopy(teacher), 1 / 16, case.recipe, minimum=32, backend=case.backend
        )
        relaxation = RELAXATIONS[case.kind](c=torch.tensor(2.0, device=device))
        set_relaxation(student, relaxation)
        teacher = record_attention(teacher).requires_grad_(False)
        if device.type == "cuda":
            narrow_linear_layers(teacher)
        self.models = TeacherStudent(teacher, student, case.stride)
        self.weights = StageWeights(attention=1, output=1, hidden=1)

    @property
    def student(self) -> nn.Module:
        return self.models.student

    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        ids = batch["input_ids"]
        device = ids.device.type
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            signals = self.models({"input_ids": ids}, self.weights)
            if signals.teacher_logits is None:
                return {"loss": token_cross_entropy(signals.logits, ids)}
            loss = token_divergence(signals.logits, signals.teacher_logits)
            return {"loss": loss + attention_loss(signals) + hidden_loss(signals)}


def measure(case: Case, device: torch.device, seconds: float, layers: int | None) -> Result:
    """Time of a step once compiled and captured, for about so many seconds."""
    step = Step(case, device, layers)
    parameters = list(step.student.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=device.type == "cuda")
    graphs = StepGraphs(step, parameters)
    ids = torch.randint(0, TOKENS, (case.batch, case.context), device=device)

    def once() -> None:
        if device.type == "cuda":
            graphs({"input_ids": ids}, case.kind)
        else:
            step({"input_ids": ids})["loss"].backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    if device.type == "cuda":  # the peak is that of the steps that are captured
        torch.cuda.reset_peak_memory_stats()
    for _ in range(4):
        once()
    began, count = _now(device), 0
    while count < 2 or _now(device) - began < seconds:
        once()
        count += 1
    took = (_now(device) - began) / count
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
    return Result(case, 1e3 * took, case.batch * case.context / took, peak)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def table(results: list[dict[str, object]]) -> str:
    """As Markdown, one row a case."""
    head = [
        "context",
        "batch",
        "step",
        "recipe",
        "backend",
        "rows compared",
        "ms",
        "tokens/s",
        "peak GiB",
    ]
    rows = []
    for each in results:
        case, student = each["case"], each["case"]["kind"] != "teacher"
        rows.append(
            [
                *(str(case[key]) for key in ("context", "batch", "kind")),
                case["recipe"] if student else "",
                case["backend"] if student else "",
                f"1 of {case['stride']}" if student else "",
                f"{each['milliseconds']:.1f}",
                f"{each['tokens_per_s']:,.0f}",
                f"{each['peak_gib']:.1f}",
            ]
        )
    return markdown(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--from", dest="source", type=Path)
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    parser.add_argument("--seconds", type=float, default=1.0, help="a case is measured for")
    parser.add_argument("--only", type=int, nargs="*", help="cases by number")
    parser.add_argument("--layers", type=int, help="fewer of them, to try the script out")
    parser.add_argument("--shrink", type=int, default=1, help="contexts divided by this")
    given = parser.parse_args()
    if given.source:
        fill(
            given.write, "distillation step", table(json.loads(given.source.read_text())["results"])
        )
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    results = []
    for number, case in enumerate(CASES):
        if given.only and number not in given.only:
            continue
        shrunk = replace(case, context=case.context // given.shrink)
        try:
            results.append(asdict(measure(shrunk, device, given.seconds, given.layers)))
        except (RuntimeError, ValueError) as error:
            log.warning("%s failed: %s", shrunk, str(error).partition("\n")[0])
            continue
        log.info(table(results[-1:]).splitlines()[-1])
        if given.out:  # after every case: a run that is cut short leaves what it has measured
            name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
            write_json(given.out, {"device": name, "torch": torch.__version__, "results": results})


if __name__ == "__main__":
    main()
