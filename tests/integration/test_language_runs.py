"""Whole runs of language-model tasks through the command line, on a very small model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

import had
from had.cli import main
from had.errors import HadError
from had.evaluation import evaluate_points, evaluate_run
from had.results.records import read_records
from tests.integration.command_line import Ended, called

TINY = (
    *("model=llama_tiny", "model.arguments.hidden_size=16", "model.arguments.num_hidden_layers=2"),
    *("model.arguments.intermediate_size=24", "model.arguments.num_attention_heads=2"),
    *("model.arguments.num_key_value_heads=1", "trainer=cpu", "logger=none", "hardware=none"),
    *("trainer.enable_progress_bar=false", "binarization.calibration_batches=2", "sparsity.n=4"),
)
LANGUAGE = ("task=lm/text", "task.tokenizer=bytes", "task.context=32", "task.batch_size=8")
LEARNING = ("task.epochs=6", "task.learning_rate=1e-2")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that a few steps learn something of."""
    file = tmp_path_factory.mktemp("text") / "rhyme.txt"
    file.write_text("one two three four five once I caught a fish alive\n" * 60)
    return file


def _train(directory: Path, *overrides: str) -> int:
    places = (f"run_dir={directory / 'run'}", f"paths.cache={directory / 'cache'}")
    return main(["train", *TINY, *places, *overrides])


@pytest.fixture(scope="module")
def run(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("language")
    assert _train(directory, *LANGUAGE, f"task.path={text}", *LEARNING) == 0
    return directory / "run"


def _metrics(run: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((run / "metrics.json").read_text())
    return found


def test_teacher_and_student_learn_and_are_compared_by_perplexity(run: Path) -> None:
    metrics = _metrics(run)
    for role in ("teacher", "student"):
        assert metrics[f"{role}/bits_per_byte"] < 7  # 8 and a little is what knows nothing
        assert metrics[f"score/{role}"] == metrics[f"{role}/perplexity"]
    ratio = metrics["student/perplexity"] / metrics["teacher/perplexity"]
    assert metrics["score/ratio"] == pytest.approx(ratio)
    assert metrics["score/drop"] == pytest.approx(100 * (ratio - 1))


def test_evaluating_again_gives_the_same(run: Path) -> None:
    again, before = evaluate_run(run), _metrics(run)
    for name in ("loss", "perplexity", "byte_perplexity", "bits_per_byte"):
        assert again[f"student/{name}"] == pytest.approx(before[f"student/{name}"], rel=1e-5)


def test_at_its_own_settings_a_run_is_what_it_was(run: Path) -> None:
    (record,) = evaluate_points(run, ["sparsity.n=4"])
    metrics = _metrics(run)
    for name in ("score/teacher", "score/student", "score/ratio"):
        assert record[name] == pytest.approx(metrics[name], rel=1e-5)


def test_a_run_is_evaluated_at_other_settings(run: Path, tmp_path: Path) -> None:
    """Every combination leaves a record; with all keys kept only the bits are left to cost."""
    changes = ["task.context=16,32", "sparsity.n=4,1.0"]
    assert main(["eval", str(run), *changes, "--records", str(tmp_path)]) == 0
    records = {(r["task.context"], r["n"]): r for r in read_records([tmp_path])}
    assert sorted(records) == [(16, 1.0), (16, 4), (32, 1.0), (32, 4)]
    assert "task.context=16" in records[16, 4]["overrides"]
    for context in (16, 32):  # the teacher does not know of N, and sees more in a longer context
        few, all_keys = records[context, 4], records[context, 1.0]
        assert few["score/teacher"] == all_keys["score/teacher"]
        assert few["score/student"] != all_keys["score/student"]
    assert records[16, 4]["score/teacher"] != records[32, 4]["score/teacher"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.name=x", "model.name: only settings of sparsity and task can be others"),
        ("task.contxt=16", "task.contxt: the run has no such setting"),
        ("sparsity.n", "sparsity.n: must be key=value"),
        ("sparsity.n=0", "sparsity.n=0: must be an integer of 1 or more"),
    ],
)
def test_what_cannot_be_changed_is_refused(run: Path, change: str, message: str) -> None:
    with pytest.raises(HadError, match=re.escape(message)):
        next(evaluate_points(run, [change]))


def test_the_table_shows_perplexities_as_they_are(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    evaluate_run(run)
    line = next(line for line in capsys.readouterr().out.splitlines() if "bits_per_byte" in line)
    metrics = _metrics(run)
    teacher, student = (metrics[f"{role}/bits_per_byte"] for role in ("teacher", "student"))
    assert line.split()[-3:] == [
        f"{teacher:.3f}",
        f"{student:.3f}",
        f"{student / teacher - 1:+.2%}",
    ]


@torch.no_grad()
def test_the_student_generates_with_its_tokenizer(run: Path) -> None:
    student = had.load_student(run / "student")
    tokenizer = AutoTokenizer.from_pretrained(run / "student")
    prompt = tokenizer("one two ", return_tensors="pt")
    assert prompt["input_ids"].tolist() == [list(b"one two ")]
    told = student.generate(**prompt, max_new_tokens=5, do_sample=False, pad_token_id=256)
    assert told.shape == (1, 13)


def test_retrieval_is_scored_at_every_length_and_depth(tmp_path: Path) -> None:
    sizes = ("task.context=256", "task.train_sequences=8", "task.eval_sequences=4")
    sets = ("task.eval_lengths=[128,256]", "task.eval_depths=[0,100]")
    assert _train(tmp_path, "task=retrieval/passkey", *sizes, *sets, "task.batch_size=8") == 0
    metrics = _metrics(tmp_path / "run")
    for name in ("", "length128_depth0/", "length256_depth100/"):
        assert 0 <= metrics[f"student/{name}accuracy"] <= 1
    assert metrics["score/student"] == 100 * metrics["student/accuracy"]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    def call(*overrides: str) -> Ended:
        places = (f"run_dir={tmp_path / 'run'}", f"paths.cache={tmp_path / 'cache'}")
        ended = called(capsys.readouterr, "train", *TINY, *places, *overrides)
        assert ended.status == 2
        assert not (tmp_path / "run" / "config.yaml").exists()
        return ended

    return call


def test_a_context_beyond_the_positions_is_refused(
    refused: Callable[..., Ended], text: Path
) -> None:
    ended = refused(*LANGUAGE, f"task.path={text}", "task.context=2048")
    (line,) = ended.err
    assert line.startswith("task.context=2048: model.name=llama has 1024 positions")


def test_an_architecture_has_no_tokenizer(refused: Callable[..., Ended], text: Path) -> None:
    (line,) = refused(*LANGUAGE, f"task.path={text}", "task.tokenizer=model").err
    assert "task.tokenizer=bytes" in line


def test_sizes_that_build_no_model_are_refused(refused: Callable[..., Ended], text: Path) -> None:
    ended = refused(*LANGUAGE, f"task.path={text}", "model.arguments.hidden_size=15")
    assert "model.arguments" in ended.err[-1]


def test_settings_without_effect_are_said(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fast = ("schedule=none", "schedule@finetune=none")
    without_effect = ("sparsity.n=64", "schedule.curriculum_skip=0.5")
    assert _train(tmp_path, *LANGUAGE, f"task.path={text}", *fast, *without_effect) == 0
    said = capsys.readouterr().err
    assert "sparsity.n=64 is not below task.context=32: rows keep all keys" in said
    assert "schedule.curriculum_skip=0.5 is ignored: the task has no curriculum" in said
    assert "finetune.curriculum_skip" not in said
