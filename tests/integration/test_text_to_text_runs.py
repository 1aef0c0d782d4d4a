"""Whole runs of text-to-text tasks on a very small T5: trained, read back, written with, priced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

import had
from had.cli import main
from had.evaluation import evaluate_run
from tests.integration.command_line import Ended, called
from tests.models.t5 import tiny_t5, word_tokenizer

pytestmark = pytest.mark.slow
WORDS = ("red", "green", "blue", "grey", "seven", "nine", "warm", "cold")
OFTEN = (
    *("model=t5", "trainer=cpu", "logger=none", "trainer.enable_progress_bar=false"),
    *("binarization.calibration_batches=2", "sparsity.n=4", "task.batch_size=16"),
)


def write_pairs(file: Path) -> Path:
    """Texts of two words; the answer is the second and the first."""
    pairs = [(f"{a} {b}", f"{b} {a}") for a in WORDS for b in WORDS]
    file.write_text("\n".join(map("\t".join, [("text", "target"), *pairs])))
    return file


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that has learned to turn words round."""
    directory = tmp_path_factory.mktemp("pairs")
    model, file = tiny_t5(directory / "t5", WORDS), write_pairs(directory / "pairs.tsv")
    places = (f"run_dir={directory / 'run'}", f"paths.cache={directory / 'cache'}")
    task = ("task=pairs", f"task.path={file}", f"task.eval_path={file}", "task.max_length=32")
    learning = ("task.epochs=30", "task.learning_rate=1e-2", "hardware.accelerators=[camformer]")
    assert main(["train", *OFTEN, f"model.name={model}", *places, *task, *learning]) == 0
    return directory / "run"


def metrics_of(run: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((run / "metrics.json").read_text())
    return found


def test_teacher_and_student_learn_to_write(run: Path) -> None:
    metrics = metrics_of(run)
    assert metrics["teacher/exact_match"] > 0.9
    assert metrics["student/exact_match"] > 0.5  # one in 64 is what guessing gives
    assert metrics["score/student"] == pytest.approx(100 * metrics["student/exact_match"])


def test_all_three_kinds_of_attention_are_compared(run: Path) -> None:
    """Two layers of the encoder, and two of the decoder with its own and with cross attention."""
    layers = [name for name in metrics_of(run) if name.endswith("/kl_nats")]
    assert len(layers) == 2 + 2 * 2


def test_evaluating_again_gives_the_same(run: Path) -> None:
    again, before = evaluate_run(run), metrics_of(run)
    assert again["student/exact_match"] == before["student/exact_match"]


def test_what_it_writes_is_what_was_scored(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Greedy decoding with the binary cache writes as many targets as teacher forcing counts."""
    student = had.load_student(run / "student").eval()
    tokenizer = word_tokenizer(WORDS)
    pairs = [(f"{a} {b}", f"{b} {a}") for a in WORDS for b in WORDS]
    texts = tokenizer([text for text, _ in pairs], return_tensors="pt")
    written = student.generate(**texts, max_new_tokens=8, do_sample=False)
    right = [
        tokenizer.decode(tokens, skip_special_tokens=True) == target
        for tokens, (_, target) in zip(written, pairs, strict=True)
    ]
    assert sum(right) / len(right) == pytest.approx(metrics_of(run)["student/exact_match"])
    one = ("--prompt", pairs[1][0], "--temperature", "0", "--max-new-tokens", "8")
    ended: Ended = called(lambda: tuple(capsys.readouterr()), "generate", str(run), *one)
    assert ended.status == 0
    assert ended.out.strip() == tokenizer.decode(written[1], skip_special_tokens=True)


def test_an_exported_student_answers_alike(run: Path, tmp_path: Path) -> None:
    assert main(["export", str(run), "--to", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "pipeline_tag: text2text-generation" in card
    theirs = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out", trust_remote_code=True).eval()
    ours = had.load_student(run / "student").eval()
    inputs = {
        **word_tokenizer(WORDS)(["red blue", "nine cold"], return_tensors="pt"),
        "decoder_input_ids": torch.tensor([[0, 5], [0, 10]]),
    }
    with torch.no_grad():
        torch.testing.assert_close(theirs(**inputs).logits, ours(**inputs).logits)


def test_prices_of_a_run_and_of_a_configuration_agree(run: Path) -> None:
    """Texts of 3 tokens, targets of 3: encoder rows see 3 keys, decoder rows 2 and 3."""
    from had.hardware import ModelGeometry, cost_metrics

    geometry = ModelGeometry(2, 4, 8, decoder_layers=2)
    workload = geometry.workload(3, 3, target=3)  # 4 keys are more than there are
    expected = cost_metrics(workload, ["camformer"])
    found = metrics_of(run)
    name = "hw/camformer/energy_ratio"
    assert found[name] == pytest.approx(expected[name], rel=0.02)


def test_quality_by_letters(tmp_path: Path) -> None:
    words = (*"ABCD", *WORDS, "question", "options", "text", ":", "(", ")", "which")
    model = tiny_t5(tmp_path / "t5", words)
    lines = [
        {
            "article": f"{'red ' * 40}{i}",
            "questions": [{"question": "which", "options": WORDS[:4], "gold_label": i % 4 + 1}],
        }
        for i in range(8)
    ]
    for name in ("train", "dev"):
        (tmp_path / f"QuALITY.v1.0.1.{name}").write_text("\n".join(map(json.dumps, lines)))
    task = ("task=quality_t5", f"task.folder={tmp_path}", "task.max_length=48", "task.epochs=1")
    places = (f"run_dir={tmp_path / 'run'}", f"paths.cache={tmp_path / 'cache'}")
    weights = "schedule=mixed", "hardware=none"
    assert main(["train", *OFTEN, f"model.name={model}", *task, *places, *weights]) == 0
    metrics = metrics_of(tmp_path / "run")
    assert metrics["student/chance"] == 0.25
    assert 0 <= metrics["student/accuracy"] <= 1
