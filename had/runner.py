"""One run from configuration to results: the only place that wires everything together."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import nn

from had.config import to_dataclasses
from had.config.composing import axes
from had.config.validate import check
from had.distill.agreement import attention_agreement
from had.distill.pair import Alone, TeacherStudent
from had.distill.teacher import TeacherCache, teacher_fingerprint
from had.inputs import Inputs, check_curriculum, check_n, load_inputs
from had.lightning.first_inputs import calibration_inputs, evaluation_inputs
from had.lightning.fit import evaluate, fit
from had.lightning.loggers import log_final, log_in, open_loggers
from had.lightning.module import DistillationModule
from had.lightning.phase import Phase
from had.lightning.resume import check_resume
from had.lightning.trainer import device, precision
from had.models.convert import binarize, record_attention
from had.models.source import ModelSource
from had.models.storage import STUDENT, save
from had.results.measures import METRIC
from had.results.record import METRICS, environment, write_json
from had.results.records import RECORD
from had.results.tables import cost_table, run_table, show
from had.tasks.base import Task

log = logging.getLogger(__name__)

CONFIG = "config.yaml"
TEACHER = "teacher.json"  # names the teacher's directory or Hub id


def run(
    cfg: DictConfig,
    *,
    overrides: Sequence[str] = (),
    inputs: Callable[[DictConfig], Inputs] = load_inputs,
    teacher_ready: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Distil: teacher, student, evaluation of both, and a run directory with every record.

    Args:
        cfg: the composed configuration (conf/train.yaml).
        overrides: what sets it apart from its axes' defaults, for the record
            (`had.config.composing.further_settings`).
        inputs: loads what the run reads; a sweep keeps it from one run to the next.
        teacher_ready: called once the teacher is there, and in the cache if it was made here.

    Returns:
        The content of metrics.json.

    Raises:
        HadError: the configuration, the data or the weights cannot be used, or a logger not without
            a login; nothing was trained.
        Interrupted: a signal ended training, a checkpoint is on disk.
    """
    check(cfg)
    log_in(cfg)
    started = time.perf_counter()
    given = inputs(cfg)
    # Not before: loading draws random numbers, and inputs may have been loaded by an earlier run.
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    check_n(given.task, cfg.sparsity.n)
    check_curriculum(given.data.train, finetune=cfg.finetune, schedule=cfg.schedule)
    model = _model(cfg, given)
    check_resume(cfg)
    _write_inputs(cfg)  # not before all inputs are known to be good: the directory may hold a run
    with open_loggers(cfg) as loggers:
        teach, learn = _phases(cfg, given, loggers)
        teacher, place = _teacher(teach, model, given.source)
        rank_zero_only(write_json)(Path(cfg.run_dir) / TEACHER, {"name": place})
        teacher_ready()
        taught = time.perf_counter()
        student, metrics = _distil(learn, teacher)
        metrics["time/teacher_s"] = taught - started
        metrics["time/total_s"] = time.perf_counter() - started
        log_final(loggers, metrics)
    identity = _identity(cfg, overrides) | task_settings(given.task, cfg)
    _finish(cfg, given, student, metrics, identity | environment(cfg.seed) | metrics)
    return metrics


def _model(cfg: DictConfig, given: Inputs) -> nn.Module:
    """The full-precision model: the teacher where one is given, else yet to be fine-tuned."""
    task = given.task
    return given.source.build(
        task.num_outputs, task.label_names, head=task.head, complete=cfg.teacher is not None
    )


def _phases(cfg: DictConfig, given: Inputs, loggers: Sequence[Logger]) -> tuple[Phase, Phase]:
    """What the teacher is fine-tuned by, and what the student learns by."""
    settings, shared = to_dataclasses(cfg), (cfg, given.task, given.data)
    clip = settings.binarization.ste_clip
    return (
        Phase("teacher", *shared, settings.finetune, loggers=loggers),
        Phase("student", *shared, settings.schedule, clip, loggers),
    )


def _distil(phase: Phase, teacher: nn.Module) -> tuple[nn.Module, dict[str, float]]:
    """A student of the teacher, and what came of both."""
    began = time.perf_counter()
    student = _student(phase, teacher)
    stride = phase.schedule.attention_stride
    module = phase.module(TeacherStudent(record_attention(teacher), student, stride))
    speed = fit(phase, module)
    seconds = time.perf_counter() - began
    metrics = evaluate(phase, module)
    metrics |= phase.task.compared(metrics) | speed | _agreement(phase, module)
    return student, metrics | {"time/distillation_s": seconds}


def _teacher(phase: Phase, model: nn.Module, source: ModelSource) -> tuple[nn.Module, str]:
    """The given teacher, or the model fine-tuned on the task: from the cache, else here and now.

    Returns:
        The teacher, and its directory or Hub id.
    """
    cfg, task = phase.cfg, phase.task
    if cfg.teacher is not None:
        return model, str(cfg.teacher)
    determined_by = {
        "schedule": asdict(phase.schedule),
        "batch_size": task.batch_size,
        "accumulate": cfg.trainer.accumulate_grad_batches,
        "gradient_clip": cfg.trainer.gradient_clip_val,
        "seed": cfg.seed,
        "precision": precision(cfg),
        "on_device": repr(phase.data.on_device),
        "order": repr(phase.data.train.order),
    }
    fingerprint = teacher_fingerprint(determined_by, phase.data.train, model)
    kept = TeacherCache(Path(cfg.paths.cache), fingerprint)
    if (finished := kept.load(source, task)) is not None:
        return finished, str(kept.directory)
    log.info("teacher: fine-tuning %s on %s", source.name, task.name)
    fit(phase, phase.module(Alone(model)))
    rank_zero_only(kept.store)(model, determined_by)
    return model, str(kept.directory)


def _student(phase: Phase, teacher: nn.Module) -> nn.Module:
    """A copy of the teacher, binarized and calibrated on training batches."""
    settings = to_dataclasses(phase.cfg)
    return binarize(
        copy.deepcopy(teacher).to(device(phase.cfg)),
        n=settings.sparsity.n,
        minimum=settings.sparsity.minimum,
        binarization=asdict(settings.binarization),
        calibration=calibration_inputs(phase, settings.binarization.calibration_batches),
        backend=phase.cfg.backend,
    )


def _agreement(phase: Phase, module: DistillationModule) -> dict[str, float]:
    """Attention of teacher and student, compared on the first examples of the evaluation set."""
    models = module.models
    assert isinstance(models, TeacherStudent)
    place, mixed = device(phase.cfg), precision(phase.cfg) == "bf16-mixed"
    for model in (models.teacher, models.student):
        model.to(place).eval()  # the trainer has put the student back on the CPU
    # A teacher trained beside in mixed precision keeps its linear layers narrow.
    with torch.autocast(place.type, torch.bfloat16, enabled=mixed):
        return attention_agreement(models, evaluation_inputs(phase))


def task_settings(task: Task, cfg: DictConfig) -> dict[str, Any]:
    """What the score is, and the task's numbers, against which scores can be drawn."""
    return {METRIC: task.score} | {
        f"task.{key}": value
        for key, value in cfg.task.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


@rank_zero_only
def _write_inputs(cfg: DictConfig) -> None:
    directory = Path(cfg.run_dir)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / CONFIG).write_text(OmegaConf.to_yaml(cfg, resolve=True))
    write_json(directory / "environment.json", environment(cfg.seed))


@rank_zero_only
def _finish(
    cfg: DictConfig,
    inputs: Inputs,
    student: nn.Module,
    metrics: dict[str, float],
    record: dict[str, Any],
) -> None:
    """Student, metrics.json, the table, and as the last line where all of it lies."""
    directory = Path(cfg.run_dir)
    save(student, directory / STUDENT, inputs.preprocessor)
    write_json(directory / METRICS, metrics)
    write_json(directory / RECORD, record)
    show_results(cfg, inputs.task, metrics)
    log.info("run directory: %s", directory)


def _identity(cfg: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """What tells this run's record from others; the seed is among its environment."""
    return axes(cfg) | {"overrides": sorted(overrides)}


def show_results(cfg: DictConfig, task: Task, metrics: dict[str, float]) -> None:
    """The table of a run: both models' metrics, and what the student's attention would cost."""
    n, minimum = cfg.sparsity.n, cfg.sparsity.get("minimum", 1)  # older runs had no minimum
    kept = f"N = {n}" if minimum == 1 else f"N = {n} of the keys, {minimum} at least"
    title = f"{task.name}, {cfg.model.label}, {cfg.binarization.name}, {kept}"
    show(run_table(title, task.score, metrics, task.plain_metrics), cost_table(metrics))
