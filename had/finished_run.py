"""A finished run opened again, by what it left behind."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from had.build import build
from had.config import to_dataclasses
from had.errors import HadError
from had.inputs import Inputs
from had.lightning.first_inputs import evaluation_inputs
from had.lightning.phase import Phase
from had.lightning.trainer import device
from had.models.source import ModelSource
from had.models.storage import STUDENT, load_student
from had.results.record import METRICS
from had.results.records import RECORD, read_record
from had.runner import CONFIG, TEACHER


@dataclass(frozen=True)
class Run:
    """A finished run; nothing in its directory is changed.

    Attributes:
        directory: with the configuration, the record, logs, checkpoints and the student.

    Raises:
        HadError: the directory is no finished run.
    """

    directory: Path

    def __post_init__(self) -> None:
        for name in (CONFIG, METRICS, RECORD):
            if not (self.directory / name).is_file():
                raise HadError(f"{self.directory}: not a finished run, it has no {name}")

    @cached_property
    def cfg(self) -> DictConfig:
        """Its configuration, resolved."""
        cfg = OmegaConf.load(self.directory / CONFIG)
        assert isinstance(cfg, DictConfig)
        return cfg

    @property
    def metrics(self) -> dict[str, float]:
        """The content of metrics.json."""
        metrics: dict[str, float] = json.loads((self.directory / METRICS).read_text())
        return metrics

    @property
    def record(self) -> dict[str, Any]:
        """What `had.results` makes tables and curves of."""
        return read_record(self.directory / RECORD)

    def student(self) -> nn.Module:
        """The student: Hamming attention on, evaluation mode, on the CPU.

        Raises:
            HadError: it is not there any more, or damaged.
        """
        remote = self.cfg.model.trust_remote_code
        return load_student(self.directory / STUDENT, trust_remote_code=remote)

    def preprocessor(self) -> Any:
        """What prepares the student's inputs, kept beside it; None for a task that needs none."""
        if not build(self.cfg.task).takes_preprocessor:
            return None
        kept: ModelSource = build(self.cfg.model).at(str(self.directory / STUDENT), key=STUDENT)
        return kept.preprocessor()

    @cached_property
    def inputs(self) -> Inputs:
        """Task, preprocessor and data, read again.

        Raises:
            HadError: they are not there any more.
        """
        task, preprocessor = build(self.cfg.task), self.preprocessor()
        return Inputs(task, build(self.cfg.model), preprocessor, task.encode(preprocessor))

    def teacher(self) -> nn.Module:
        """The teacher it learned from: full precision, evaluation mode, on the CPU.

        Raises:
            HadError: it, or the data, are not there any more.
        """
        task = self.inputs.task
        return self.teacher_with(task.num_outputs, task.label_names, head=task.head)

    def teacher_with(
        self, outputs: int, label_names: Sequence[str] = (), head: str = "classification"
    ) -> nn.Module:
        """The teacher, without a look at the data.

        Args:
            outputs: width of the task's output.
            label_names: of the task's classes.
            head: what the task wants on top of the model.

        Raises:
            HadError: it is not there any more.
        """
        place = self.directory / TEACHER
        if not place.is_file():
            raise HadError(f"{self.directory}: it has no {TEACHER}, which names its teacher")
        source: ModelSource = build(self.cfg.model).at(json.loads(place.read_text())["name"])
        try:
            source.check()
            return source.build(outputs, list(label_names), head=head, complete=True).eval()
        except HadError as error:
            raise HadError(
                f"{self.directory}: its teacher cannot be loaded: {error}; the same command as the "
                f"run's makes it again, and {place} says where it is looked for"
            ) from error

    @cached_property
    def phase(self) -> Phase:
        """What evaluating its models takes, in one process.

        Raises:
            HadError: its data are not there any more.
        """
        cfg = self.cfg.copy()
        cfg.run_dir = str(self.directory)
        # Several processes would each evaluate all of it.
        cfg.trainer.update(devices=1, strategy="auto", num_nodes=1)
        task, data = self.inputs.task, self.inputs.data
        return Phase("student", cfg, task, data, to_dataclasses(cfg).schedule)


def student_and_inputs(directory: Path) -> tuple[nn.Module, Iterator[dict[str, Tensor]]]:
    """The student of a finished run, and its first evaluation examples, on one device.

    Raises:
        HadError: the directory is no finished run, or its data are not there.
    """
    run = Run(directory)
    return run.student().to(device(run.phase.cfg)), evaluation_inputs(run.phase)
