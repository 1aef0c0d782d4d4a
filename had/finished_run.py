"""A finished run opened again: its student, to evaluate it or to look at it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor, nn

from had.build import build
from had.config import to_dataclasses
from had.distill.pair import Alone
from had.errors import HadError
from had.lightning.fit import evaluate
from had.lightning.inputs import evaluation_inputs
from had.lightning.phase import Phase
from had.lightning.trainer import device
from had.models.storage import STUDENT, load_student
from had.results.record import METRICS
from had.runner import CONFIG, show_results
from had.tasks.base import Task


def evaluate_run(directory: Path) -> dict[str, float]:
    """Evaluate the student of a finished run again; its teacher's figures come from the record.

    Args:
        directory: a run directory; nothing in it is changed.

    Returns:
        `student/<metric>`, `teacher/<metric>` and the costs.

    Raises:
        HadError: the directory is no finished run.
    """
    student, phase, _ = reopened(directory)
    metrics = evaluate(phase, phase.module(Alone(student)))
    record = json.loads((directory / METRICS).read_text())
    metrics |= {name: value for name, value in record.items() if name.startswith("teacher/")}
    show_results(phase.cfg, phase.task, metrics)
    return metrics


def student_and_inputs(directory: Path) -> tuple[nn.Module, Iterator[dict[str, Tensor]]]:
    """The student of a finished run, and its first evaluation examples, on one device.

    Raises:
        HadError: the directory is no finished run, or its data are not there.
    """
    student, phase, _ = reopened(directory)
    return student.to(device(phase.cfg)), evaluation_inputs(phase)


def reopened(directory: Path) -> tuple[nn.Module, Phase, Any]:
    """The student of a finished run, what evaluating it needs, and its preprocessor.

    Raises:
        HadError: the directory is no finished run, or its data are not there.
    """
    if not (directory / METRICS).is_file():
        raise HadError(f"{directory}: not a finished run, it has no {METRICS}")
    cfg = OmegaConf.load(directory / CONFIG)
    cfg.run_dir = str(directory)
    # Several processes would each evaluate all of it.
    cfg.trainer.update(devices=1, strategy="auto", num_nodes=1)
    student = load_student(directory / STUDENT, trust_remote_code=cfg.model.trust_remote_code)
    task: Task = build(cfg.task)
    kept = build(cfg.model).at(str(directory / STUDENT), key=STUDENT)
    preprocessor = kept.preprocessor() if task.takes_preprocessor else None
    data = task.encode(preprocessor)
    phase = Phase("student", cfg, task, data, to_dataclasses(cfg).schedule)
    return student, phase, preprocessor
