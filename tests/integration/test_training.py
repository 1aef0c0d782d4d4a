"""`had.train` and `had.compose`: the command line's runs, from Python."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from transformers import ViTConfig, ViTForImageClassification

import had
from had.attention.module import hamming_layers
from had.config.command_line import request
from had.errors import HadError
from had.evaluation import evaluate_run
from had.finished_run import Run

QUICK = ("task.epochs=1", "logger=none", "trainer=cpu", "trainer.enable_progress_bar=false")
N = "sparsity.n=3"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("training")
    return had.train(*QUICK, N, f"run_dir={folder / 'run'}", f"paths.cache={folder / 'cache'}")


def test_a_run_leaves_what_the_command_line_leaves(run: Run) -> None:
    written = json.loads((run.directory / "metrics.json").read_text())
    assert written == run.metrics
    assert run.record["n"] == 3
    assert "task.epochs=1" in run.record["overrides"]
    assert (run.directory / "student" / "model.safetensors").is_file()


def test_its_student_is_read_back(run: Run) -> None:
    student = run.student()
    assert {layer.options.n for layer in hamming_layers(student)} == {3}
    with torch.no_grad():
        assert student(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@torch.no_grad()
def test_data_and_teacher_of_a_run_give_its_scores(run: Run) -> None:
    data = run.inputs.data.evaluation[""]
    for role, model in (("teacher", run.teacher()), ("student", run.student())):
        found = model(data.inputs["pixel_values"]).argmax(-1)
        accuracy = (found == data.labels).float().mean().item()
        assert run.metrics[f"{role}/accuracy"] == pytest.approx(accuracy)


def test_any_image_model_takes_digits(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    pixels = {"image_size": 8, "patch_size": 4, "num_channels": 1, "num_labels": 10}
    config = ViTConfig(**sizes, **pixels, intermediate_size=16)
    ViTForImageClassification(config).save_pretrained(tmp_path / "mine")
    named = [f"{key}={tmp_path / 'mine'}" for key in ("model.name", "teacher")]
    model = ("model=transformers", "model.modality=image", *named)
    run = had.train(*QUICK, *model, N, f"run_dir={tmp_path / 'run'}")
    again = evaluate_run(run.directory)
    assert again["student/accuracy"] == run.metrics["student/accuracy"]


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HadError, match=r"not a finished run, it has no config\.yaml"):
        Run(tmp_path)


def test_a_configuration_is_composed_as_on_the_command_line() -> None:
    cfg = had.compose("task=glue/rte", "model=minilm", "sparsity.n=16")
    assert (cfg.task.name, cfg.model.label, cfg.sparsity.n) == ("rte", "minilm", 16)
    assert "hydra" not in cfg
    assert not GlobalHydra.instance().is_initialized()


def test_a_recipe_brings_its_schedule() -> None:
    assert had.compose("binarization=ptq").schedule.stages == []


def test_everything_wrong_is_said_at_once() -> None:
    with pytest.raises(HadError, match=r"(?s)sparsity\.n.*no such task.*|no such task.*sparsity"):
        had.compose("task=nonsense", "sparsity.n=-1")


def test_runs_of_one_process_have_directories_of_their_own() -> None:
    first, second = request(), request()
    assert first.cfg.run_dir != second.cfg.run_dir
    assert copy.deepcopy(first.cfg).run_dir == first.cfg.run_dir  # not the date of the copy
    assert first.overrides == ()
