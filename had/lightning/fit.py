"""Training a phase through its schedule, from the start or from a checkpoint; and evaluating it."""

from __future__ import annotations

import signal
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from had.config.values import is_sharded
from had.distill.pair import Alone, TeacherStudent, with_copied_student
from had.lightning.callbacks.checkpoints import Checkpoints
from had.lightning.callbacks.hardware import HardwareCost
from had.lightning.callbacks.throughput import Throughput
from had.lightning.compiling import compiled_blocks
from had.lightning.data import ShuffledBatches, evaluation_loader, training_loader
from had.lightning.fused_attention import without_cudnn
from had.lightning.module import DistillationModule
from had.lightning.phase import Phase
from had.lightning.resume import resume_point
from had.lightning.sharding import Sharded, WholeWeights
from had.lightning.trainer import build_trainer


class Interrupted(Exception):
    """A signal ended training; the checkpoint it left is on disk.

    Attributes:
        signal: its number.
        rank: of this process among those of the run.
    """

    def __init__(self, number: int, rank: int = 0) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.signal, self.rank = number, rank


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
    resume = resume_point(phase)
    # A phase draws the same random numbers whether or not another one ran before it.
    pl.seed_everything(phase.cfg.seed, workers=True, verbose=False)
    throughput = Throughput()
    trainer = build_trainer(phase, throughput)
    train = _train_sharded if isinstance(trainer.strategy, Sharded) else _train
    train(phase, module, trainer, resume)
    for callback in trainer.callbacks:
        if isinstance(callback, Checkpoints) and callback.interrupted_by is not None:
            raise Interrupted(callback.interrupted_by, trainer.global_rank)
    return throughput.metrics()


def _train(
    phase: Phase, module: DistillationModule, trainer: pl.Trainer, resume: tuple[Path, int] | None
) -> None:
    checkpoint, step = resume or (None, 0)
    with _blocks(phase, module.models), without_cudnn():
        trainer.fit(
            module,
            training_loader(_batches(phase, trainer, step)),
            _evaluation_loaders(phase),
            ckpt_path=checkpoint,
            weights_only=True,
        )


def _train_sharded(
    phase: Phase, module: DistillationModule, trainer: pl.Trainer, resume: tuple[Path, int] | None
) -> None:
    """Train a copy: what was sharded stays so, and could be neither evaluated nor saved."""
    whole = WholeWeights()
    trainer.callbacks.append(whole)
    learner = phase.module(with_copied_student(module.models))
    _train(phase, learner, trainer, resume)
    module.load_state_dict(whole.state)


def _batches(phase: Phase, trainer: pl.Trainer, step: int) -> ShuffledBatches:
    """This process's batches of the whole phase, from an optimizer step on."""
    accumulate = phase.cfg.trainer.accumulate_grad_batches
    return ShuffledBatches(
        phase.data.train,
        phase.task.batch_size,
        phase.total_steps * accumulate,
        phase.cfg.seed,
        skipped=phase.schedule.curriculum_skip,
        start=step * accumulate,
        rank=trainer.global_rank,
        world_size=trainer.world_size,
    )


def evaluate(phase: Phase, module: DistillationModule) -> dict[str, float]:
    """Metrics of student and teacher on all evaluation sets, and what the student would cost.

    Returns:
        `role/metric` or `role/set/metric`, and `hw/<accelerator>/<quantity>`.
    """
    # Every process evaluates everything with the whole student, as it does with the whole teacher.
    whole = {"strategy": "ddp"} if is_sharded(phase.cfg.trainer.strategy) else {}
    trainer = build_trainer(phase, **whole)
    results = trainer.test(module, _evaluation_loaders(phase), verbose=False)[0]
    for callback in trainer.callbacks:
        if isinstance(callback, HardwareCost):
            results |= callback.metrics
    return {name: float(value) for name, value in results.items()}


def _blocks(phase: Phase, models: TeacherStudent | Alone) -> AbstractContextManager[None]:
    """How the blocks of the models run while a student learns: compiled where that is wanted."""
    compiles = phase.cfg.compile and isinstance(models, TeacherStudent)
    return compiled_blocks(models) if compiles else nullcontext()


def _evaluation_loaders(phase: Phase) -> list[Any]:
    size = phase.task.eval_batch_size
    return [evaluation_loader(dataset, size) for dataset in phase.data.evaluation.values()]
