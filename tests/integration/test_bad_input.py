"""Bad input ends in one clear message and exit status 2; nothing is trained, nothing is lost."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from tests.integration import material
from tests.integration.command_line import called, overrides, spawned, started_anew
from tests.integration.trials import FINISHED, Trial, complaints, contents


def test_what_the_trials_start_from_is_sound(trial: Trial) -> None:
    """Otherwise every trial below would be refused for the wrong reason."""
    ended = called(trial.read, "train", *overrides(*trial.sound))
    assert ended.status == 0, ended.err
    assert (trial.run_dir / "metrics.json").is_file()
    assert trial.trained()


# The configuration.


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (
            "task=glue/sst3",
            r"task=glue/sst3: no such task; did you mean glue/sst2\? \(there are .*",
        ),
        ("model=brt", r"model=brt: no such model; did you mean bert\? \(there are bert, .*"),
        ("task.batchsize=8", r"task.batchsize=8: no such key: .* did you mean batch_size\?"),
        ("sparsity.n=0", r"sparsity.n=0: must be an integer of 1 or more, or a fraction .*"),
        ("sparsity.n=1.5", r"sparsity.n=1.5: must be an integer of 1 or more, or a fraction .*"),
        ("model.name=./nowhere", r"model.name=./nowhere: no such directory; give a model .*"),
        ("teacher=./nowhere", r"teacher=./nowhere: there is no such directory; give one, .*"),
        ("resume=./nowhere", r"resume=./nowhere: there is no such file or directory; give .*"),
    ],
)
def test_configuration(trial: Trial, wrong: str, line: str) -> None:
    assert re.fullmatch(line, trial.refused(wrong))
    assert not trial.run_dir.exists()


def test_an_image_task_with_a_text_model(trial: Trial) -> None:
    """Of the two sizes that only a text task has, each is one more mistake of this command line."""
    *_, line = trial.all_refused("task=digits")
    assert line.startswith("task.modality=image does not fit model.modality=text: digits needs a")


def test_mistakes_come_together(trial: Trial) -> None:
    lines = trial.all_refused(
        *("sparsity.n=0", "task.batch_size=0", "teacher=./x", "trainer.precision=half")
    )
    keys = {line.partition("=")[0] for line in lines}
    assert keys == {"sparsity.n", "task.batch_size", "teacher", "trainer.precision"}


def test_mistakes_in_data_and_model_come_together(trial: Trial) -> None:
    (trial.place / "no_model").mkdir()
    lines = trial.all_refused(
        f"paths.data={trial.place / 'no_data'}", f"model.name={trial.place / 'no_model'}"
    )
    assert len(lines) == 2
    assert lines[0].startswith(f"model.name={trial.place / 'no_model'}: not a model directory")
    assert lines[1].startswith("no data for task sst2: looked for train.tsv, dev.tsv in ")


# Data.


def test_a_missing_data_directory_without_the_package_for_the_hub(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    absent = lambda name, *more: None if name == "datasets" else find(name, *more)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", absent)
    line = trial.refused(f"paths.data={trial.place / 'nowhere'}")
    assert str(trial.place / "nowhere" / "glue" / "SST-2") in line
    assert "train.tsv, dev.tsv" in line
    assert "(the package `datasets` is not installed)" in line
    assert "set paths.data (or HAD_DATA)" in line
    assert "`pip install datasets` and go online" in line


def test_an_empty_file(trial: Trial) -> None:
    root = trial.copy_of_data()
    (file := root / "glue" / "SST-2" / "train.tsv").write_text("")
    assert trial.refused(f"paths.data={root}").startswith(f"{file}: the file is empty")


def test_a_file_with_a_header_alone(trial: Trial) -> None:
    root = trial.copy_of_data()
    (file := root / "glue" / "SST-2" / "dev.tsv").write_text("sentence\tlabel\n")
    assert trial.refused(f"paths.data={root}").startswith(f"{file}: the file has no examples")


def test_one_of_two_files(trial: Trial) -> None:
    root = trial.copy_of_data()
    (file := root / "glue" / "SST-2" / "dev.tsv").unlink()
    line = trial.refused(f"paths.data={root}")
    assert line.startswith(f"{file}: no such file, though train.tsv is there; put the official")


def test_an_unknown_label(trial: Trial) -> None:
    root = trial.copy_of_data()
    file = root / "glue" / "SST-2" / "dev.tsv"
    file.write_text(file.read_text() + "the film was good\tgreat\n")
    line = trial.refused(f"paths.data={root}")
    assert line.startswith(f"{file}:12: unknown label 'great'; known labels: 0, 1")


def test_a_missing_column(trial: Trial) -> None:
    file = material.write_reviews(trial.place / "reviews.csv")
    line = trial.refused("task=files", f"task.path={file}", "task.text=review", "task.label=stars")
    assert line.startswith(f"{file}: no column 'stars'; there are: review, mood")


# Checkpoints and results that are there already.


@pytest.mark.parametrize("content", [b"", b"no checkpoint" * 99])
def test_a_corrupt_checkpoint(trial: Trial, content: bytes) -> None:
    file = trial.place / "student" / "step-0000003.ckpt"
    file.parent.mkdir()
    file.write_bytes(content)
    line = trial.refused(f"resume={file}")
    assert line.startswith(f"resume={file}: damaged or no checkpoint")
    assert line.endswith("resume=auto takes the newest valid one")


def test_a_checkpoint_of_an_unknown_phase(trial: Trial) -> None:
    """It would be ignored otherwise, and everything trained anew without a word."""
    torch.save({"global_step": 3}, file := trial.place / "best.ckpt")
    line = trial.refused(f"resume={file}")
    assert line.startswith(f"resume={file}: its directory tells whose checkpoint it is")


def test_a_directory_without_checkpoints(trial: Trial) -> None:
    (place := trial.place / "outputs").mkdir()
    line = trial.refused(f"resume={place}")
    assert line.startswith(f"resume={place}: no checkpoints/*/step-*.ckpt in it")


@pytest.mark.parametrize("mistake", ["data", "weights", "teacher", "checkpoint", "value"])
def test_a_finished_run_loses_nothing(trial: Trial, base: Path, mistake: str) -> None:
    (checkpoints := trial.run_dir / "checkpoints" / "student").mkdir(parents=True)
    (checkpoints / FINISHED).write_bytes(b"weights")
    for name in ("metrics.json", "record.json", "environment.json"):
        (trial.run_dir / name).write_text('{"score/student": 91.0}\n')
    (trial.run_dir / "config.yaml").write_text(OmegaConf.to_yaml({"sparsity": {"n": 30}}))
    (damaged := trial.copy_of_model() / "model.safetensors").write_bytes(b"")
    wrong = {
        "data": f"paths.data={trial.place / 'nowhere'}",
        "weights": f"model.name={damaged.parent}",
        "teacher": f"teacher={base}",
        "checkpoint": f"resume={checkpoints / 'finished.ckpt'}",
        "value": "sparsity.n=0",
    }
    trial.refused(wrong[mistake])  # compares what is in the run directory
    assert len(contents(trial.run_dir)) == 5


def test_eval_of_a_directory_that_is_no_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = called(capfd.readouterr, "eval", str(tmp_path))
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == [f"{tmp_path}: not a finished run, it has no config.yaml"]


# In a process of its own: nothing is in reach, neither files nor network.


@pytest.fixture
def nothing_in_reach(tmp_path: Path) -> dict[str, str]:
    """Environment variables of a machine that is offline and has downloaded nothing."""
    places = {"HF_HOME": "hub", "HAD_DATA": "data", "HAD_CACHE": "cache"}
    return {
        **{name: str(tmp_path / place) for name, place in places.items()},
        **{"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
    }


def test_no_network_and_no_model(
    tmp_path: Path, data: Path, nothing_in_reach: dict[str, str]
) -> None:
    arguments = ("task=glue/sst2", "model=bert", f"paths.data={data}", f"run_dir={tmp_path}/run")
    ended = started_anew("train", *arguments, **nothing_in_reach)
    (line,) = complaints(ended.err)
    assert (ended.status, ended.out) == (2, "")
    assert line.startswith("model.name=google-bert/bert-base-uncased: neither a local directory ")
    assert line.endswith(
        "model.name=<directory with config.json and model.safetensors>, or go online"
    )
    assert contents(tmp_path / "run") == {}


def test_no_network_and_no_data(
    tmp_path: Path, base: Path, nothing_in_reach: dict[str, str]
) -> None:
    pytest.importorskip("datasets")
    arguments = overrides("task=glue/sst2", f"model.name={base}", f"run_dir={tmp_path}/run")
    ended = started_anew("train", *arguments, **nothing_in_reach)
    (line,) = complaints(ended.err)
    assert (ended.status, ended.out) == (2, "")
    assert str(tmp_path / "data" / "glue" / "SST-2") in line
    assert "nyu-mll/glue on the Hub" in line
    assert "set paths.data (or HAD_DATA)" in line
    assert contents(tmp_path / "run") == {}


def test_the_exit_status_of_the_process(tmp_path: Path) -> None:
    ended = spawned("train", "sparsity.n=0", "task.batch_size=0", f"run_dir={tmp_path}/run")
    assert (ended.status, ended.out, len(ended.err)) == (2, "", 3)
    assert ended.err[0] == "2 problems in the configuration; nothing was started:"
    assert not (tmp_path / "run").exists()
