"""Whole runs by their options: tasks, a given teacher, sweeps, loggers, callbacks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

import had
from had.cli import main
from had.evaluation import evaluate_run
from tests.integration import material
from tests.integration.command_line import overrides, spawned
from tests.integration.places import DEV, LEARNING, Place, Run, predictions

DIGITS = (
    *("model.arguments.embed_dim=16", "model.arguments.depth=2", "model.arguments.patch_size=4"),
    *("task.epochs=1", "task.batch_size=128", "sparsity.n=2", "binarization.calibration_batches=2"),
    *("trainer=cpu", "trainer.enable_progress_bar=false", "logger=none", "hardware=none"),
)


@pytest.fixture(scope="module")
def untrained(place: Place) -> Run:
    """A given teacher and a student that is binarized and no more."""
    given = ("task=glue/sst2", f"teacher={place.teacher}", "schedule=none", "sparsity.n=0.25")
    return place.run("untrained", *given)


# Tasks.


def test_both_development_sets_of_mnli(place: Place) -> None:
    """9 and 12 examples: which accuracy is whose shows in what it is a multiple of."""
    run = place.run("mnli", "task=glue/mnli")
    for role in ("teacher", "student"):
        matched = run.metrics[f"{role}/accuracy"] * 9
        mismatched = run.metrics[f"{role}/mismatched/accuracy"] * 12
        assert matched == pytest.approx(round(matched), abs=1e-4)
        assert mismatched == pytest.approx(round(mismatched), abs=1e-4)
    assert run.metrics["score/student"] == 100 * run.metrics["student/accuracy"]
    assert list(run.config["id2label"].values()) == ["entailment", "neutral", "contradiction"]


def test_a_file_of_the_users_own(place: Place) -> None:
    file = material.write_reviews(place.root / "reviews.csv")
    columns = (f"task.path={file}", "task.text=review", "task.label=mood")
    run = place.run("files", "task=files", *columns, *LEARNING)
    assert run.config["id2label"] == {"0": "cold", "1": "warm"}
    assert {key for key in run.metrics if key.startswith("student/")} == {
        *("student/accuracy", "student/macro_f1", "student/agreement")
    }
    assert run.metrics["score/teacher"] >= 75
    assert "36 rows for training, 4 held out" in run.log


def test_digits(place: Place) -> None:
    directory = place.root / "digits"
    given = (
        "task=digits",
        "model=vit_digits",
        f"paths.cache={place.cache}",
        f"run_dir={directory}",
    )
    assert main(["train", *overrides(*given, base=DIGITS)]) == 0
    run = Run(directory)
    student = had.load_student(directory / "student")
    assert run.config["had"]["n"] == 2
    assert student(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
    assert evaluate_run(directory)["student/accuracy"] == run.metrics["student/accuracy"]


# Ways to run.


def test_a_given_teacher_is_used_as_it_is(untrained: Run, place: Place) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(place.teacher).eval()
    sentences = [material.sentence(row) for row in range(DEV)]
    classes = predictions(model, place.teacher, sentences).argmax(1)
    right = sum(int(answer) == 1 - row % 2 for row, answer in enumerate(classes))
    assert untrained.metrics["teacher/accuracy"] == pytest.approx(right / DEV)
    assert "fine-tun" not in untrained.log


def test_a_schedule_without_stages_trains_nothing(untrained: Run, place: Place) -> None:
    teacher = load_file(place.teacher / "model.safetensors")
    assert all(torch.equal(untrained.weights[name], teacher[name]) for name in teacher)
    assert not (untrained.directory / "checkpoints").exists()
    sigma = next(value for name, value in untrained.weights.items() if "sigma" in name)
    assert 0 < float(sigma.flatten()[0]) != 1  # measured, not left at what it starts with


def test_a_fraction_of_the_keys(untrained: Run) -> None:
    assert untrained.config["had"]["n"] == 0.25
    assert had.load_student(untrained.directory / "student").config.had["n"] == 0.25


def test_a_sweep_makes_a_run_of_every_value(place: Place) -> None:
    sweep = place.root / "sweep"
    given = ("task=glue/sst2", f"teacher={place.teacher}", "schedule=none", "sparsity.n=2,4")
    arguments = place.arguments("unused", *given, f"hydra.sweep.dir={sweep}")
    assert main(["train", "-m", *arguments]) == 0
    runs = [Run(sweep / number) for number in ("0", "1")]
    assert [run.config["had"]["n"] for run in runs] == [2, 4]
    assert all("score/student" in run.metrics for run in runs)
    assert sorted(file.parent.name for file in sweep.rglob("metrics.json")) == ["0", "1"]


@pytest.fixture
def short(place: Place) -> Callable[..., Run]:
    """A run of five steps with a given teacher."""
    return lambda name, *given: place.run(
        name, "task=glue/sst2", f"teacher={place.teacher}", *given
    )


def test_tensorboard(short: Callable[..., Run]) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = short("tensorboard", "logger=tensorboard", "trainer.log_every_n_steps=1")
    tags: set[str] = set()
    for file in (run.directory / "tensorboard").rglob("events.out.*"):
        events = EventAccumulator(str(file))
        events.Reload()
        tags |= set(events.Tags()["scalars"])
    assert {"train/loss", "student/accuracy"} <= tags


@pytest.fixture
def logged_out(tmp_path: Path) -> dict[str, str]:
    """An environment without any credentials for W&B."""
    home = {"HOME": str(tmp_path), "WANDB_DIR": str(tmp_path), "NETRC": str(tmp_path / "none")}
    return {**home, "WANDB_API_KEY": "", "WANDB_SILENT": "true", "WANDB_MODE": "online"}


def test_wandb_offline_needs_no_login(
    place: Place, tmp_path: Path, logged_out: dict[str, str]
) -> None:
    pytest.importorskip("wandb")
    given = ("task=glue/sst2", f"teacher={place.teacher}", "logger=wandb_offline")
    ended = spawned("train", *place.arguments("wandb", *given), **logged_out)
    assert ended.status == 0, ended.err
    files = [*(place.root / "wandb").rglob("run-*.wandb"), *tmp_path.rglob("run-*.wandb")]
    assert files
    assert "score/student" in Run(place.root / "wandb").metrics


@pytest.mark.parametrize(("key", "reason"), [("", "configured"), ("too-short", "40")])
def test_wandb_without_a_usable_key_is_refused_before_anything_is_loaded(
    place: Place, logged_out: dict[str, str], key: str, reason: str
) -> None:
    pytest.importorskip("wandb")
    given = place.arguments("logged_out", "task=glue/sst2", "logger=wandb", "paths.data=missing")
    ended = spawned("train", *given, **{**logged_out, "WANDB_API_KEY": key})
    assert (ended.status, ended.out) == (2, ""), ended
    (line,) = ended.err
    assert re.search(rf"logger=wandb: .*{reason}.*`wandb login`.*logger=wandb_offline", line)
    assert not (place.root / "logged_out" / "config.yaml").exists()


def test_no_callbacks(short: Callable[..., Run]) -> None:
    run = short("bare", "callbacks=none", "hardware=default")
    assert not (run.directory / "checkpoints").exists()
    assert not any(key.startswith("hw/") for key in run.metrics)
    assert "score/student" in run.metrics


def test_accumulation_makes_fewer_steps(short: Callable[..., Run]) -> None:
    """4 passes over 5 batches are 20 batches: 10 steps of two."""
    run = short("accumulated", "trainer.accumulate_grad_batches=2", "schedule.epochs_factor=4")
    assert run.checkpoints("student")[-1] == "step-0000010.ckpt"
