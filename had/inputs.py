"""What a run reads, found good or refused before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from had.build import build
from had.config import ScheduleConfig
from had.errors import HadError
from had.models.source import ModelSource
from had.tasks.base import EncodedDataset, Task, TaskData
from had.tasks.curriculum import Curriculum

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """What a run reads: good for every run with the same task, model and teacher."""

    task: Task
    source: ModelSource
    preprocessor: Any
    data: TaskData


def load_inputs(cfg: DictConfig) -> Inputs:
    """Task and model as configured; whatever is wrong with their files is found here.

    Args:
        cfg: of which task, model and teacher are read.

    Raises:
        HadError: files are missing or damaged, or the model cannot take the task's examples.
    """
    task: Task = build(cfg.task)
    source: ModelSource = build(cfg.model)
    if cfg.teacher:
        source = source.at(cfg.teacher)
    _all_good(source.check, task.read)
    _check_length(task, source)
    preprocessor = task.preprocessor(source)
    return Inputs(task, source, preprocessor, task.encode(preprocessor))


def check_n(task: Task, n: int | float) -> None:
    """Warn where N cannot make a difference."""
    if task.positions is not None and isinstance(n, int) and n >= task.positions:
        log.warning(
            "sparsity.n=%d is not below task.%s=%d: rows keep all keys",
            *(n, task.length_key, task.positions),
        )


def check_curriculum(data: EncodedDataset, **schedules: ScheduleConfig) -> None:
    """Warn where a schedule skips what is not there.

    Args:
        data: trained on.
        schedules: by their keys in the configuration.
    """
    for key, schedule in schedules.items():
        if schedule.curriculum_skip and not isinstance(data.order, Curriculum):
            log.warning(
                "%s.curriculum_skip=%s is ignored: the task has no curriculum",
                *(key, schedule.curriculum_skip),
            )


def _check_length(task: Task, source: ModelSource) -> None:
    """Refuse examples that are longer than the model takes."""
    key, length, limit = f"task.{task.length_key}", task.positions, source.positions()
    if length is not None and limit is not None and length > limit:
        raise HadError(
            f"{key}={length}: {source} has {limit} positions; give {key}={limit} or less, "
            f"or a model with more (+model.arguments.max_position_embeddings={length} where "
            "they are not learned)"
        )


def _all_good(*checks: Callable[[], None]) -> None:
    """Run all checks; whatever they refuse is reported together."""
    problems = []
    for look in checks:
        try:
            look()
        except HadError as error:
            problems.append(str(error))
    if problems:
        raise HadError("\n".join(problems))
