"""A finished run evaluated again: as it was, or under other settings, as another N or context."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from had.attention.module import hamming_layers
from had.config.composing import axes
from had.config.validate import check
from had.distill.pair import Alone, TeacherStudent
from had.errors import HadError
from had.finished_run import Run
from had.lightning.fit import evaluate
from had.lightning.phase import Phase
from had.models.convert import record_attention
from had.results.record import environment, write_json
from had.results.records import OVERRIDES, record_name
from had.runner import show_results, task_settings

_GROUPS = ("sparsity", "task")  # whose settings can be others than those trained with
_ABSENT = object()


def evaluate_run(directory: Path) -> dict[str, float]:
    """Evaluate the student of a finished run again; its teacher's figures come from the record.

    Args:
        directory: a run directory; nothing in it is changed.

    Returns:
        `student/<metric>`, `teacher/<metric>` and the costs.

    Raises:
        HadError: the directory is no finished run, or its student or data are not there any more.
    """
    run = Run(directory)
    metrics = evaluate(run.phase, run.phase.module(Alone(run.student())))
    metrics |= {name: value for name, value in run.metrics.items() if name.startswith("teacher/")}
    show_results(run.cfg, run.phase.task, metrics)
    return metrics


@dataclass(frozen=True)
class Trained:
    """A finished run, its models and data in memory.

    Attributes:
        run: itself.
        models: its student and its teacher.
    """

    run: Run
    models: TeacherStudent

    @classmethod
    def of(cls, directory: Path) -> Trained:
        """The run in a directory.

        Raises:
            HadError: it is none, or its teacher is gone.
        """
        run = Run(directory)
        return cls(run, TeacherStudent(record_attention(run.teacher()), run.student()))

    def at(self, changes: Sequence[str]) -> dict[str, Any]:
        """Evaluates student and teacher under changed settings; the record of it.

        Args:
            changes: "sparsity.n=64", "task.context=1024", ...

        Raises:
            HadError: a setting is unknown, cannot be changed, or makes no sense.
        """
        phase = self._phase(changes)
        n, minimum = phase.cfg.sparsity.n, phase.cfg.sparsity.minimum
        for layer in hamming_layers(self.models.student):
            layer.options = replace(layer.options, n=n, minimum=minimum)
        metrics = evaluate(phase, phase.module(self.models))
        metrics |= phase.task.compared(metrics)
        show_results(phase.cfg, phase.task, metrics)
        told = axes(phase.cfg) | task_settings(phase.task, phase.cfg)
        return told | self._overrides(changes) | environment(self.run.record["seed"]) | metrics

    def _phase(self, changes: Sequence[str]) -> Phase:
        trained = self.run.phase
        cfg = _changed(trained.cfg, changes)
        if cfg.task == trained.cfg.task:
            return replace(trained, cfg=cfg)
        task = copy.copy(trained.task)
        for key, value in cfg.task.items():
            if value != trained.cfg.task[key]:
                setattr(task, key, value)
        return replace(trained, cfg=cfg, task=task, data=task.encode(self.run.inputs.preprocessor))

    def _overrides(self, changes: Sequence[str]) -> dict[str, list[str]]:
        """What sets the evaluation apart from its axes: N itself is one of these.

        Training's own values stand beside the others: a student trained with 30 keys and evaluated
        with 8 is not one that was trained with 8.
        """
        kept = {text.partition("=")[0]: text for text in self.run.record.get(OVERRIDES, ())}
        keys = [text.partition("=")[0] for text in changes]
        kept |= dict(zip(keys, changes, strict=True))
        kept.pop("sparsity.n", None)
        trained = [f"trained.{key}={OmegaConf.select(self.run.cfg, key)}" for key in keys]
        return {OVERRIDES: sorted([*kept.values(), *trained])}


def evaluate_points(
    directory: Path, changes: Sequence[str], records: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Evaluates a finished run at every combination of settings, one after the other.

    Args:
        directory: a run directory; nothing in it is changed.
        changes: "key=value,value,..." each.
        records: folder that gets a record of every point; None for none.

    Yields:
        The records.

    Raises:
        HadError: the directory is no finished run, or a setting is not one that can be changed.
    """
    points = list(product(*map(_values, changes)))
    trained = Trained.of(directory)
    for point in points:  # all of them, before the first one takes its time
        _changed(trained.run.phase.cfg, point)
    for point in points:
        record = trained.at(point)
        if records is not None:
            write_json(records / record_name(record), record)
        yield record


def _values(change: str) -> list[str]:
    key, found, values = change.partition("=")
    if not found or not values:
        raise HadError(f"{change}: must be key=value or key=value,value,...")
    return [f"{key}={value}" for value in values.split(",")]


def _changed(cfg: DictConfig, changes: Sequence[str]) -> DictConfig:
    """The configuration with settings changed, checked as before a run."""
    cfg = copy.deepcopy(cfg)
    for text in changes:
        key = text.partition("=")[0]
        group = key.partition(".")[0]
        if group not in _GROUPS:
            listed = " and ".join(_GROUPS)
            raise HadError(f"{key}: only settings of {listed} can be others than in training")
        if OmegaConf.select(cfg, key, default=_ABSENT) is _ABSENT:
            raise HadError(f"{key}: the run has no such setting")
    cfg.merge_with_dotlist(list(changes))
    check(cfg)
    return cfg
