"""One phase of a run: train a model through a schedule, from the start or from a checkpoint."""

from __future__ import annotations

import logging
import math
import os
import signal
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, ListConfig
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.environments import SLURMEnvironment

from had.build import build, build_all
from had.config import ScheduleConfig
from had.distill.pair import Alone, TeacherStudent, with_copied_student
from had.distill.schedule import Schedule
from had.errors import HadError
from had.lightning.callbacks.checkpoints import Checkpoints, checkpoint_step, newest_valid
from had.lightning.callbacks.hardware import HardwareCost
from had.lightning.callbacks.throughput import Throughput
from had.lightning.compiling import compiled_blocks
from had.lightning.data import ShuffledBatches, evaluation_loader, training_loader
from had.lightning.module import DistillationModule
from had.lightning.sharding import Sharded, WholeWeights
from had.tasks.base import Task, TaskData

log = logging.getLogger(__name__)

# The loaders start where the checkpoint ends, and a short run may have fewer steps than a log line.
warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before")
warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")  # inside Lightning
warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than")
warnings.filterwarnings("ignore", message="Found .* module.* in eval mode")  # without dropout

PHASES = ("teacher", "student")  # in the order of a run
_PRECISIONS = {"cuda": "bf16-mixed"}  # of a trainer whose precision is null; others are 32-true


class Interrupted(Exception):
    """A signal ended training; the checkpoint it left is on disk.

    Attributes:
        signal: its number.
        rank: of this process among those of the run.
    """

    def __init__(self, number: int, rank: int = 0) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.signal, self.rank = number, rank


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


def fit(phase: Phase, module: DistillationModule) -> dict[str, float]:
    """Train through the phase's schedule, continuing from a checkpoint if `resume` says so.

    Returns:
        Training speed and peak memory, see `Throughput`.

    Raises:
        Interrupted: SIGTERM or Ctrl-C came; a checkpoint has been written.
        HadError: the checkpoint to resume from is damaged, or of another schedule.
    """
    if not phase.total_steps:
        return {}
    resume = _resume_point(phase)
    # A phase draws the same random numbers whether or not another one ran before it.
    pl.seed_everything(phase.cfg.seed, workers=True, verbose=False)
    throughput, whole = Throughput(), WholeWeights()
    trainer = build_trainer(phase, throughput)
    sharded = isinstance(trainer.strategy, Sharded)
    if sharded:
        trainer.callbacks.append(whole)
    accumulate = phase.cfg.trainer.accumulate_grad_batches
    batches = ShuffledBatches(
        len(phase.data.train),
        phase.task.batch_size,
        phase.total_steps * accumulate,
        phase.cfg.seed,
        start=resume[1] * accumulate if resume else 0,
        rank=trainer.global_rank,
        world_size=trainer.world_size,
    )
    learner = phase.module(with_copied_student(module.models)) if sharded else module
    with _blocks(phase, learner.models):
        trainer.fit(
            learner,
            training_loader(phase.data.train, batches),
            _evaluation_loaders(phase),
            ckpt_path=resume[0] if resume else None,
            weights_only=True,
        )
    if sharded:  # what was sharded stays so, and only its copy can be evaluated and saved
        module.load_state_dict(whole.state)
    for callback in trainer.callbacks:
        if isinstance(callback, Checkpoints) and callback.interrupted_by is not None:
            raise Interrupted(callback.interrupted_by, trainer.global_rank)
    return throughput.metrics()


def evaluate(phase: Phase, module: DistillationModule) -> dict[str, float]:
    """Metrics of student and teacher on all evaluation sets, and what the student would cost.

    Returns:
        `role/metric` or `role/set/metric`, and `hw/<accelerator>/<quantity>`.
    """
    # Every process evaluates everything with the whole student, as it does with the whole teacher.
    trainer = build_trainer(phase, **({"strategy": "ddp"} if _is_sharded(phase.cfg) else {}))
    results = trainer.test(module, _evaluation_loaders(phase), verbose=False)[0]
    for callback in trainer.callbacks:
        if isinstance(callback, HardwareCost):
            results |= callback.metrics
    return {name: float(value) for name, value in results.items()}


def _blocks(phase: Phase, models: TeacherStudent | Alone) -> AbstractContextManager[None]:
    """How the blocks of the models run while a student learns: compiled where that is wanted."""
    compiles = phase.cfg.compile and isinstance(models, TeacherStudent)
    return compiled_blocks(models) if compiles else nullcontext()


def _is_sharded(cfg: DictConfig) -> bool:
    strategy = cfg.trainer.strategy
    return isinstance(strategy, DictConfig) and "Sharded" in str(strategy.get("_target_"))


def build_trainer(phase: Phase, *extra: pl.Callback, **changes: Any) -> pl.Trainer:
    """The configured trainer with `extra` callbacks, and what follows from the phase filled in.

    Args:
        phase: what is trained or evaluated.
        extra: further callbacks.
        changes: arguments of the trainer that replace configured ones.
    """
    cfg = phase.cfg
    callbacks = [*build_all(cfg.callbacks), *extra]
    if not cfg.trainer.enable_progress_bar:
        # Lightning refuses a progress bar callback beside enable_progress_bar=false.
        callbacks = [each for each in callbacks if not isinstance(each, pl.callbacks.ProgressBar)]
    passes = phase.total_steps * cfg.trainer.accumulate_grad_batches
    return build(
        {**cfg.trainer, "precision": precision(cfg), **changes},
        callbacks=callbacks,
        logger=list(phase.loggers) or False,
        default_root_dir=str(phase.checkpoints(cfg.run_dir)),
        max_epochs=1,  # all passes over the data are one epoch of the loader
        max_steps=phase.total_steps or -1,
        val_check_interval=max(1, min(phase.batches_per_pass, passes)),
        use_distributed_sampler=False,
        # Lightning's own requeueing saves checkpoints that know nothing of the order of the data.
        plugins=[SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else None,
    )


def device(cfg: DictConfig) -> torch.device:
    """Where this process of the configured trainer computes."""
    wants_gpu = cfg.trainer.accelerator in ("auto", "gpu", "cuda")
    if not (wants_gpu and torch.cuda.is_available()):
        return torch.device("cpu")
    given = cfg.trainer.devices
    places = list(given) if isinstance(given, ListConfig) else range(torch.cuda.device_count())
    local_rank = int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0)
    return torch.device("cuda", places[local_rank % len(places)])


def precision(cfg: DictConfig) -> str:
    """The trainer's precision; by default bf16-mixed on a GPU and 32-true elsewhere."""
    return str(cfg.trainer.precision or _PRECISIONS.get(device(cfg).type, "32-true"))


def _evaluation_loaders(phase: Phase) -> list[Any]:
    size = phase.task.eval_batch_size
    return [evaluation_loader(dataset, size) for dataset in phase.data.evaluation.values()]


def _resume_point(phase: Phase) -> tuple[Path, int] | None:
    """The checkpoint to continue this phase from and its step, or None for a fresh start."""
    resume = phase.cfg.resume
    if resume is None:
        return None
    if resume == "auto":
        found = newest_valid(phase.checkpoints(phase.cfg.run_dir))
    elif (place := Path(resume).expanduser()).is_dir():
        found = newest_valid(phase.checkpoints(place))
    else:
        found = _given_checkpoint(place, phase.name)
    if found:
        log.info("%s: continuing from %s (step %d)", phase.name, *found)
    return found


def check_resume(cfg: DictConfig) -> None:
    """Refuse, before anything is trained, a `resume` that there is nothing to continue from.

    Raises:
        HadError: a damaged or misplaced checkpoint, or a directory without any.
    """
    if cfg.resume in (None, "auto"):
        return
    place = Path(cfg.resume).expanduser()
    if not place.is_dir():
        _given_checkpoint(place, PHASES[0])
    elif not any(place.glob("checkpoints/*/step-*.ckpt")):
        raise HadError(
            f"resume={place}: no checkpoints/*/step-*.ckpt in it; give a run directory that was "
            "interrupted, or resume=null to start anew"
        )


def _given_checkpoint(file: Path, phase: str) -> tuple[Path, int] | None:
    """A checkpoint named by the user; it belongs to one phase, the other starts afresh."""
    if not file.is_file():
        raise HadError(
            f"resume={file}: no such checkpoint or run directory; resume=null starts anew"
        )
    try:
        step = checkpoint_step(file)
    except ValueError as error:
        raise HadError(f"resume={file}: {error}; resume=auto takes the newest valid one") from None
    if file.parent.name not in PHASES:
        raise HadError(
            f"resume={file}: its directory tells whose checkpoint it is, and must be called "
            + " or ".join(PHASES)
        )
    return (file, step) if file.parent.name == phase else None
