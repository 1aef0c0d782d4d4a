"""Whole runs through the command line: tiny models and files, real training, every record."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import had
from had.cli import main
from had.finished_run import evaluate_run
from tests.integration import material
from tests.integration.command_line import called, command, overrides, spawned, variables

KEYS = re.compile(
    r"(teacher|student)/(mismatched/)?[a-z0-9_]+"
    r"|score/(teacher|student|drop)"
    r"|hw/[a-z0-9_]+/[a-z0-9_]+"
    r"|attention/\d+/kl_nats"
    r"|time/[a-z0-9_]+"
)
LEARNING = ("task.epochs=12", "task.learning_rate=2e-3")  # enough for sentences with one clear word
DIGITS = (
    *("model.arguments.embed_dim=16", "model.arguments.depth=2", "model.arguments.patch_size=4"),
    *("task.epochs=1", "task.batch_size=128", "sparsity.n=2", "binarization.calibration_batches=2"),
    *("trainer=cpu", "trainer.enable_progress_bar=false", "logger=none", "hardware=none"),
)
DEV = 10  # sentences in the development sets, but MNLI's


@dataclass(frozen=True)
class Run:
    """A finished run, by what it left."""

    directory: Path

    @property
    def metrics(self) -> dict[str, float]:
        return json.loads((self.directory / "metrics.json").read_text())

    @property
    def results(self) -> dict[str, float]:
        """The metrics that a repetition must give again: all but times."""
        return {key: value for key, value in self.metrics.items() if not key.startswith("time/")}

    @property
    def log(self) -> str:
        return (self.directory / "train.log").read_text()

    @property
    def config(self) -> dict[str, Any]:
        """config.json of the student."""
        return json.loads((self.directory / "student" / "config.json").read_text())

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return load_file(self.directory / "student" / "model.safetensors")

    def checkpoints(self, phase: str) -> list[str]:
        return sorted(file.name for file in (self.directory / "checkpoints" / phase).glob("*"))


@dataclass(frozen=True)
class Place:
    """Where the runs of this module find their input and leave their results."""

    root: Path
    base: Path
    teacher: Path
    data: Path

    def arguments(self, name: str, *given: str) -> list[str]:
        return overrides(
            *(f"model.name={self.base}", f"paths.data={self.data}", f"paths.cache={self.cache}"),
            *(f"run_dir={self.root / name}", *given),
        )

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def run(self, name: str, *given: str) -> Run:
        assert main(["train", *self.arguments(name, *given)]) == 0
        return Run(self.root / name)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("runs")
    for write in (material.write_sst2, material.write_stsb, material.write_mnli):
        write(root / "data")
    base = material.base_bert(root / "base")
    return Place(root, base, material.classifier(root / "teacher"), root / "data")


SST2 = ("task=glue/sst2", "logger=csv", "trainer.log_every_n_steps=1", *LEARNING)


@pytest.fixture(scope="module")
def sst2(place: Place) -> Run:
    """A teacher fine-tuned here, and its student, priced on accelerators."""
    return place.run("sst2", *SST2, "hardware=default")


@pytest.fixture(scope="module")
def again(place: Place, sst2: Run) -> Run:
    """The same command with another directory."""
    return place.run("again", *SST2, "hardware=default")


@pytest.fixture(scope="module")
def stsb(place: Place) -> Run:
    given = ("task.epochs=12", "task.learning_rate=1e-3", "binarization=had_plus")
    return place.run("stsb", "task=glue/stsb", *given)


@pytest.fixture(scope="module")
def untrained(place: Place) -> Run:
    """A given teacher and a student that is binarized and no more."""
    given = ("task=glue/sst2", f"teacher={place.teacher}", "schedule=none", "sparsity.n=0.25")
    return place.run("untrained", *given)


# What a run leaves.


def test_a_run_directory_holds_every_record(sst2: Run) -> None:
    there = {path.name for path in sst2.directory.iterdir()}
    records = {"config.yaml", "environment.json", "metrics.json", "record.json", "train.log"}
    assert there == records | {"teacher.json"} | {".hydra", "checkpoints", "csv", "student"}
    config = OmegaConf.load(sst2.directory / "config.yaml")
    assert "${" not in (sst2.directory / "config.yaml").read_text()
    assert (config.sparsity.n, config.task.name, config.run_dir) == (4, "sst2", str(sst2.directory))
    environment = json.loads((sst2.directory / "environment.json").read_text())
    assert environment["seed"] == 0
    assert environment["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert set(environment) >= {"had", "python", "commit", "device"}
    given = OmegaConf.load(sst2.directory / ".hydra" / "overrides.yaml")
    assert "task=glue/sst2" in given


def test_metrics_are_one_flat_dict(sst2: Run) -> None:
    metrics = sst2.metrics
    assert [key for key in metrics if not KEYS.fullmatch(key)] == []
    assert all(isinstance(value, float) for value in metrics.values())
    assert {"teacher/accuracy", "student/accuracy", "time/total_s"} <= set(metrics)
    assert metrics["score/teacher"] == 100 * metrics["teacher/accuracy"]
    assert metrics["score/drop"] == metrics["score/teacher"] - metrics["score/student"]
    priced = {key.split("/")[1] for key in metrics if key.startswith("hw/")}
    assert priced == {"standard", "had_digital", "had_cam", "camformer"}
    assert metrics["hw/standard/energy_ratio"] == 1


def test_teacher_and_student_learn_what_is_easy(sst2: Run) -> None:
    """Every sentence has one word that decides, so a working run makes hardly a mistake."""
    assert sst2.metrics["score/teacher"] >= 90
    assert sst2.metrics["score/student"] >= 80


def test_the_record_is_metrics_identity_and_environment(sst2: Run) -> None:
    record = json.loads((sst2.directory / "record.json").read_text())
    assert {key: record[key] for key in sst2.metrics} == sst2.metrics
    identity = [record[key] for key in ("task", "model", "binarization", "schedule", "n", "seed")]
    assert identity == ["sst2", "transformers", "had", "paper", 4, 0]


def test_the_teacher_is_not_in_the_students_files(sst2: Run, place: Place) -> None:
    full_precision = set(load_file(place.teacher / "model.safetensors"))
    cores = {name for name in sst2.weights if ".core." in name}
    assert set(sst2.weights) - cores == full_precision
    assert {name.split(".core.")[0] for name in cores} == {
        f"bert.encoder.layer.{layer}.attention.self" for layer in (0, 1)
    }
    newest = sst2.directory / "checkpoints" / "student" / sst2.checkpoints("student")[-1]
    state = torch.load(newest, weights_only=True)["state_dict"]
    assert all(name.startswith("student.") for name in state)


def test_the_csv_logger_has_the_losses(sst2: Run) -> None:
    rows = []
    for file in sst2.directory.glob("csv/*/metrics.csv"):
        with file.open() as opened:
            rows += list(csv.DictReader(opened))
    for phase in ("finetune", "train"):
        losses = [float(row[f"{phase}/loss"]) for row in rows if row.get(f"{phase}/loss")]
        assert len(losses) == 12 * 5  # 12 passes over 5 batches
        assert all(np.isfinite(losses))
    stages = [(row["train/stage"], row["step"]) for row in rows if row.get("train/stage")]
    assert stages == [("0", "0"), ("1", "15"), ("2", "30"), ("3", "51")]  # 25, 25, 35, 15 %


# The student, loaded again.


def predictions(model: torch.nn.Module, folder: Path, *texts: list[str]) -> torch.Tensor:
    """Logits, a sentence at a time, so that nothing depends on padding."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        rows = [model(**tokenizer(*row, return_tensors="pt")).logits[0] for row in zip(*texts)]  # noqa: B905
    return torch.stack(rows)


def test_a_loaded_student_gives_the_figures_of_the_run(sst2: Run) -> None:
    student = had.load_student(sst2.directory / "student")
    sentences = [material.sentence(row) for row in range(DEV)]
    classes = predictions(student, sst2.directory / "student", sentences).argmax(1)
    right = sum(int(answer) == 1 - row % 2 for row, answer in enumerate(classes))
    assert sst2.metrics["student/accuracy"] == pytest.approx(right / DEV)
    assert sst2.config["id2label"] == {"0": "negative", "1": "positive"}


def test_a_loaded_regressor_gives_the_figures_of_the_run(stsb: Run) -> None:
    """A correlation moves with every digit of every prediction."""
    with (stsb.directory / "config.yaml").open() as file:
        data = Path(OmegaConf.load(file).paths.data)
    with (data / "glue" / "STS-B" / "dev.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    texts = [[row[f"sentence{number}"] for row in rows] for number in (1, 2)]
    student = had.load_student(stsb.directory / "student")
    values = predictions(student, stsb.directory / "student", *texts)
    assert values.shape == (DEV, 1)
    truth = np.array([float(row["score"]) for row in rows])
    expected = np.corrcoef(values[:, 0].double().numpy(), truth)[0, 1]
    assert stsb.metrics["student/pearson"] == pytest.approx(expected, abs=1e-4)


def test_eval_shows_the_figures_again_and_changes_nothing(
    sst2: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    def times() -> dict[Path, int]:
        # Training's own log is still open in this process, and takes what evaluation says.
        files = [path for path in sst2.directory.rglob("*") if path.suffix != ".log"]
        return {path: path.stat().st_mtime_ns for path in files}

    before = times()
    ended = called(capfd.readouterr, "eval", str(sst2.directory))
    assert ended.status == 0
    (row,) = [line for line in ended.out.splitlines() if "accuracy *" in line]
    figures = re.findall(r"[-+]?\d+\.\d+", row)
    scores = [sst2.metrics[f"score/{name}"] for name in ("teacher", "student", "drop")]
    assert [float(figure) for figure in figures] == pytest.approx(scores, abs=0.005)
    assert times() == before


def test_eval_computes_the_same_figures(stsb: Run) -> None:
    figures = evaluate_run(stsb.directory)
    names = [
        f"{role}/{kind}" for role in ("teacher", "student") for kind in ("pearson", "spearman")
    ]
    expected = {name: stsb.metrics[name] for name in names}
    assert {name: figures[name] for name in names} == pytest.approx(expected, abs=1e-5)


# The same again.


def test_a_teacher_is_fine_tuned_once(sst2: Run, again: Run, place: Place) -> None:
    assert "teacher: fine-tuning" in sst2.log
    assert "reused from" not in sst2.log
    assert "teacher: fine-tuning" not in again.log
    (found,) = re.findall(r"teacher: .*, reused from (.*)", again.log)
    assert Path(found).parent == place.cache / "teachers"
    assert again.checkpoints("teacher") == []


def test_the_same_seed_gives_the_same_run_bit_by_bit(sst2: Run, again: Run) -> None:
    assert again.results == sst2.results
    assert again.weights.keys() == sst2.weights.keys()
    assert all(torch.equal(again.weights[name], sst2.weights[name]) for name in sst2.weights)


def test_another_seed_gives_another_teacher_and_student(sst2: Run, place: Place) -> None:
    other = place.run("seed1", *SST2, "seed=1", "task.epochs=1")
    short = place.run("seed0", *SST2, "seed=0", "task.epochs=1")
    assert "teacher: fine-tuning" in other.log
    name = "classifier.weight"
    assert not torch.equal(other.weights[name], short.weights[name])
    assert json.loads((other.directory / "environment.json").read_text())["seed"] == 1


def test_kill_and_resume(sst2: Run, place: Place) -> None:
    """kill -9 in the middle of the student's training; resume=auto ends where `sst2` ended."""
    given = (*SST2, "hardware=default", "callbacks.checkpoints.every_n_steps=2")
    arguments = place.arguments("killed", *given)
    process = subprocess.Popen(
        command("train", *arguments),
        env=variables({}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    student = place.root / "killed" / "checkpoints" / "student"
    deadline = time.monotonic() + 120
    while not any(student.glob("step-*.ckpt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (place.root / "killed" / "metrics.json").exists()
    resumed = place.run("killed", *given, "resume=auto")
    assert re.search(r"student: continuing from .*step-\d+\.ckpt", resumed.log)
    assert resumed.results == sst2.results
    assert all(torch.equal(resumed.weights[name], sst2.weights[name]) for name in sst2.weights)


# Tasks.


def test_regression(stsb: Run) -> None:
    assert stsb.metrics["teacher/pearson"] > 0.5
    names = {key for key in stsb.metrics if key.startswith("student/")}
    assert names == {"student/pearson", "student/spearman"}
    assert stsb.metrics["score/student"] == 100 * stsb.metrics["student/spearman"]
    assert stsb.config["had"]["scale"] == "head_scale"
    assert stsb.weights["classifier.weight"].shape[0] == 1


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
    run = short("accumulated", "trainer.accumulate_grad_batches=2", "task.epochs=4")
    assert run.checkpoints("student")[-1] == "step-0000010.ckpt"


@pytest.fixture(autouse=True)
def _nothing_left_in_the_working_directory() -> Iterator[None]:
    before = {path.name for path in Path.cwd().iterdir()}
    yield
    after = {path.name for path in Path.cwd().iterdir()}
    assert not after & {"outputs", "multirun", "wandb", "lightning_logs"} - before
