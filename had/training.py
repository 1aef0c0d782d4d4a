"""One run from Python: `had.train("task=glue/sst2", "sparsity.n=8")` does what `had train` does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from had.config.command_line import request
from had.config.quiet import quiet_libraries
from had.errors import HadError
from had.models.source import ModelSource
from had.models.storage import STUDENT, load_student
from had.results.record import METRICS
from had.results.records import RECORD
from had.runner import CONFIG, TEACHER, Inputs, load_inputs, run


@dataclass(frozen=True)
class Run:
    """A finished run, by what it left behind.

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

    @cached_property
    def inputs(self) -> Inputs:
        """Task, preprocessor and data, read again.

        Raises:
            HadError: they are not there any more.
        """
        return load_inputs(self.cfg)

    @property
    def metrics(self) -> dict[str, float]:
        """The content of metrics.json."""
        metrics: dict[str, float] = json.loads((self.directory / METRICS).read_text())
        return metrics

    @property
    def record(self) -> dict[str, Any]:
        """What `had.results` makes tables and curves of."""
        record: dict[str, Any] = json.loads((self.directory / RECORD).read_text())
        return record

    def student(self) -> nn.Module:
        """The student: Hamming attention on, evaluation mode, on the CPU."""
        remote = self.cfg.model.trust_remote_code
        return load_student(self.directory / STUDENT, trust_remote_code=remote)

    def teacher(self) -> nn.Module:
        """The teacher it learned from: full precision, evaluation mode, on the CPU.

        Raises:
            HadError: it is not there any more.
        """
        task, source = self.inputs.task, self.inputs.source
        return load_teacher(
            self.directory, source, task.num_outputs, task.label_names, head=task.head
        ).eval()


def load_teacher(
    directory: Path,
    source: ModelSource,
    outputs: int,
    label_names: Sequence[str] = (),
    head: str = "classification",
) -> nn.Module:
    """The teacher that a run names.

    Args:
        directory: of the run.
        source: its model.
        outputs: width of the task's output.
        label_names: of the task's classes.
        head: what the task wants on top of the model.

    Raises:
        HadError: it is not there any more.
    """
    name = json.loads((directory / TEACHER).read_text())["name"]
    try:
        return source.at(name).build(outputs, list(label_names), head=head, complete=True)
    except HadError as error:
        raise HadError(
            f"{directory}: its teacher cannot be loaded: {error}; the same command as the run's "
            f"makes it again, and {directory / TEACHER} says where it is looked for"
        ) from error


def train(*overrides: str) -> Run:
    """Distil, as `had train` with the same overrides.

    Args:
        overrides: of the configuration, "task=glue/sst2", "sparsity.n=8", "run_dir=here", ...

    Raises:
        HadError: the configuration, the data or the weights cannot be used; nothing was trained.
        had.lightning.fit.Interrupted: a signal ended training, a checkpoint is on disk.
    """
    wanted = request(*overrides)
    with quiet_libraries():
        run(wanted.cfg, overrides=wanted.overrides)
    return Run(Path(wanted.cfg.run_dir))
