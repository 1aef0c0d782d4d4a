"""What training and evaluating one of a run's models needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger

from had.config import ScheduleConfig
from had.distill.pair import Alone, TeacherStudent
from had.distill.schedule import Schedule
from had.lightning.module import DistillationModule
from had.tasks.base import Task, TaskData

PHASES = ("teacher", "student")  # in the order of a run


@dataclass(frozen=True)
class Phase:
    """Everything that training and evaluating one model needs.

    Attributes:
        name: "teacher" or "student"; the checkpoints lie in `checkpoints/<name>`.
        cfg: the whole configuration, for trainer, callbacks, seed and run_dir.
        task: losses and metrics.
        data: encoded examples.
        schedule: stages and learning rate.
        ste_clip: see `had.distill.schedule.Schedule`.
        loggers: of the run, shared by its phases.
    """

    name: str
    cfg: DictConfig
    task: Task
    data: TaskData
    schedule: ScheduleConfig
    ste_clip: float | None = None
    loggers: Sequence[Logger] = ()

    def checkpoints(self, run_dir: str | Path) -> Path:
        """Where this phase's checkpoints lie in a run directory."""
        return Path(run_dir) / "checkpoints" / self.name

    @property
    def batches_per_pass(self) -> int:
        return math.ceil(len(self.data.train) / self.task.batch_size)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole phase; 0 for a schedule without stages."""
        if not self.schedule.stages:
            return 0
        batches = self.schedule.epochs * self.schedule.epochs_factor * self.batches_per_pass
        return max(1, round(batches / self.cfg.trainer.accumulate_grad_batches))

    def module(self, models: TeacherStudent | Alone) -> DistillationModule:
        """The Lightning module of this phase around `models`."""
        schedule = Schedule(self.schedule, self.total_steps, self.ste_clip, self.cfg.seed)
        sets = list(self.data.evaluation)
        return DistillationModule(
            models,
            self.task,
            schedule,
            sets,
            cuda_graphs=self.cfg.cuda_graphs,
            on_device=self.data.on_device,
        )
