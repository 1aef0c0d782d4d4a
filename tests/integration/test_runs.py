"""Whole runs through the command line: tiny models and files, real training, every record."""

from __future__ import annotations

import csv
import json
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

import had
from had.evaluation import evaluate_run
from tests.integration import material
from tests.integration.command_line import called, forked
from tests.integration.places import DEV, LEARNING, Place, Run, predictions

pytestmark = pytest.mark.slow
KEYS = re.compile(
    r"(teacher|student)/(mismatched/)?[a-z0-9_]+"
    r"|score/(teacher|student|drop)"
    r"|hw/[a-z0-9_]+/[a-z0-9_]+"
    r"|attention/\d+/kl_nats"
    r"|time/[a-z0-9_]+"
)
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
    for phase, passes in (("finetune", 12), ("train", 24)):  # a student's are twice its teacher's
        losses = [float(row[f"{phase}/loss"]) for row in rows if row.get(f"{phase}/loss")]
        assert len(losses) == passes * 5  # batches
        assert all(np.isfinite(losses))
    stages = [(row["train/stage"], row["step"]) for row in rows if row.get("train/stage")]
    assert stages == [("0", "0"), ("1", "30"), ("2", "60"), ("3", "102")]  # 25, 25, 35, 15 %


# The student, loaded again.


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
    student = place.root / "killed" / "checkpoints" / "student"
    deadline = time.monotonic() + 120
    with forked("train", *arguments) as process:
        while not any(student.glob("step-*.ckpt")):
            assert process.poll() is None, process.err.text
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.ended().returncode == -signal.SIGKILL
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
