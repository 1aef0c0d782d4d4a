"""Training speed and peak memory, measured while a run goes on."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
import torch

_WARM = 30  # steps left out after the start of each stage: compiling and capturing happen there


class Throughput(pl.Callback):
    """Steps a second over all stretches of training that nothing else interrupts.

    A stretch begins some steps into a stage and ends with the stage or at a validation; waiting for
    data belongs to it. The device is synchronised only at both ends of a stretch.

    Attributes:
        steps: optimizer steps measured.
        seconds: time they took.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.seconds = 0.0
        self._start: tuple[int, float] | None = None
        self._resting_until = _WARM

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._resting_until = trainer.global_step + _WARM
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step = trainer.global_step
        if step in pl_module.schedule.borders:
            self._close(step)
            self._resting_until = step + _WARM
        elif self._start is None and step >= self._resting_until:
            self._start = step, _now()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close(trainer.global_step)

    def metrics(self) -> dict[str, float]:
        """`time/steps_per_s` if enough steps were taken, `memory/peak_gib` on a GPU."""
        values = {"time/steps_per_s": self.steps / self.seconds} if self.steps else {}
        if torch.cuda.is_available():
            values["memory/peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        return values

    def _close(self, step: int) -> None:
        if self._start is None:
            return
        first, began = self._start
        self._start = None
        self.steps += step - first
        self.seconds += _now() - began


def _now() -> float:
    """Seconds, after the device has done everything asked of it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
