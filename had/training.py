"""One run from Python: `had.train("task=glue/sst2", "sparsity.n=8")` does what `had train` does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from had.config.command_line import request
from had.models.storage import STUDENT, load_student
from had.results.records import RECORD
from had.runner import run


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        directory: with the configuration, the record, logs, checkpoints and the student.
        metrics: the content of metrics.json.
    """

    directory: Path
    metrics: dict[str, float]

    @property
    def record(self) -> dict[str, Any]:
        """What `had.results` makes tables and curves of."""
        record: dict[str, Any] = json.loads((self.directory / RECORD).read_text())
        return record

    def student(self) -> nn.Module:
        """The student, read from the directory: Hamming attention on, evaluation mode, CPU."""
        return load_student(self.directory / STUDENT)


def train(*overrides: str) -> Run:
    """Distil, as `had train` with the same overrides.

    Args:
        overrides: of the configuration, "task=glue/sst2", "sparsity.n=8", "run_dir=here", ...

    Raises:
        HadError: the configuration, the data or the weights cannot be used; nothing was trained.
        had.lightning.fit.Interrupted: a signal ended training, a checkpoint is on disk.
    """
    wanted = request(*overrides)
    metrics = run(wanted.cfg, overrides=wanted.overrides)
    return Run(Path(wanted.cfg.run_dir), metrics)
