"""Checkpoints that lose nothing: at stage borders, every k steps, and on a signal."""

from __future__ import annotations

import logging
import os
import random
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from had.lightning.module import DistillationModule
from had.lightning.shares import gathered, largest
from had.lightning.signals import Signals

log = logging.getLogger(__name__)


class Checkpoints(pl.Callback):
    """Writes `step-*.ckpt` into the trainer's root directory, whole or not at all.

    SIGTERM and Ctrl-C end the run after the step in progress, with a checkpoint; a second Ctrl-C
    ends it at once. Several processes stop together, whichever of them the signal reached. The
    random state of each travels along, so that a resumed run repeats the uninterrupted one.

    Args:
        every_n_steps: optimizer steps between two checkpoints.
        keep: how many of the newest to keep; two survive a damaged one.

    Attributes:
        interrupted_by: number of the signal that ended the run, or None.
    """

    def __init__(self, every_n_steps: int = 500, keep: int = 2) -> None:
        self.every_n_steps = every_n_steps
        self.keep = keep
        self.interrupted_by: int | None = None
        self._saved_step = 0
        self._restored: dict[str, Any] | None = None
        self._signals = Signals()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._signals.look()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Not earlier: Lightning installs a handler of its own that would end the run unsaved.
        self._saved_step = trainer.global_step
        self._signals.listen()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._signals.restore()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._signals.restore()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._restored is not None:
            set_random_state(self._restored)
            self._restored = None

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: DistillationModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step = trainer.global_step
        due = step % self.every_n_steps == 0 or step in pl_module.schedule.borders
        number = self._agreed(trainer)
        if step > self._saved_step and (due or number):
            self._save(trainer, step)
        if number and not self._signals.pass_on(number):
            self.interrupted_by = number
            trainer.should_stop = True

    def _agreed(self, trainer: pl.Trainer) -> int:
        """The signal that came to this process or, after the same step, to another; 0 if none.

        A process that stopped alone would leave the others waiting for its gradients.
        """
        own = self._signals.number or 0
        return own if trainer.world_size == 1 else largest(own, trainer.strategy.root_device)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["random_state"] = gathered(random_state())

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        states = dict(enumerate(checkpoint["random_state"]))
        self._restored = states.get(trainer.global_rank)  # none if there were fewer processes

    def _save(self, trainer: pl.Trainer, step: int) -> None:
        folder = Path(trainer.default_root_dir)
        final = folder / f"step-{step:07d}.ckpt"
        partial = final.with_suffix(".partial")
        trainer.save_checkpoint(partial, weights_only=False)
        self._saved_step = step
        if trainer.is_global_zero:
            os.replace(partial, final)
            for old in sorted(folder.glob("step-*.ckpt"))[: -self.keep]:
                old.unlink()


def random_state() -> dict[str, Any]:
    """The state of every random generator that training draws from, as plain data and tensors."""
    return {
        "python": random.getstate(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Undo everything drawn since `random_state` was taken."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([each.cpu() for each in state["cuda"]])


def newest_valid(folder: Path) -> tuple[Path, int] | None:
    """The newest checkpoint in `folder` that can be read whole, and its step.

    Damaged ones are skipped with a warning. None if there is no valid one.
    """
    for file in sorted(folder.glob("step-*.ckpt"), reverse=True):
        try:
            return file, checkpoint_step(file)
        except ValueError as error:
            log.warning("%s is %s; skipped", file, error)
    return None


def checkpoint_step(file: Path) -> int:
    """The step a checkpoint was written at.

    Raises:
        ValueError: it cannot be read whole; the message does not name it.
    """
    try:
        return int(torch.load(file, map_location="cpu", weights_only=True)["global_step"])
    except Exception as error:  # whatever a damaged file makes the reader raise
        reason = f"{type(error).__name__}: {error}".partition("\n")[0].partition(". ")[0]
        raise ValueError(f"damaged or no checkpoint ({reason})") from error
