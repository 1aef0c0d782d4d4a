"""Training speed and peak memory, measured while a run goes on."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytorch_lightning as pl
import torch

from had.lightning.callbacks.gaps import CudaGaps, Gaps, HostGaps

log = logging.getLogger(__name__)

_WARM = 30  # steps left out after the start of each stage: compiling and capturing happen there


class Throughput(pl.Callback):
    """Steps and examples a second over all stretches of training that nothing else interrupts.

    A stretch begins some steps into a stage and ends with the stage or at a validation; waiting for
    data belongs to it. The device is synchronised only at both ends of a stretch.

    Attributes:
        steps: optimizer steps measured.
        examples: of all processes, in these steps.
        seconds: time they took.
        waiting: seconds of these in which the device stood between the end of a batch and the
            arrival of the next.
    """

    def __init__(self) -> None:
        self.steps = self.examples = 0
        self.seconds = self.waiting = 0.0
        self._gaps: Gaps = HostGaps()
        self._start: tuple[int, float] | None = None
        self._resting_until = _WARM

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._resting_until = trainer.global_step + _WARM
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self._gaps = CudaGaps()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self._gaps.end()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step = trainer.global_step
        if self._start is not None:
            self.examples += len(batch["labels"]) * trainer.world_size
        if step in pl_module.schedule.borders:
            self._close(step)
            self._resting_until = step + _WARM
        elif self._start is None and step >= self._resting_until:
            self._start = step, _now()
        if self._start is not None:
            self._gaps.begin()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close(trainer.global_step)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.steps:
            log.info(
                "%.0f examples/s, %.1f %% of the time waiting for data",
                self.examples / self.seconds,
                100 * self.waiting / self.seconds,
            )

    def metrics(self) -> dict[str, float]:
        """Of `time/`: steps and examples a second and the share of waiting, if enough steps were
        taken; on a GPU also `memory/peak_gib`.
        """
        values = {}
        if self.steps:
            values["time/steps_per_s"] = self.steps / self.seconds
            values["time/examples_per_s"] = self.examples / self.seconds
            values["time/waiting_for_data_share"] = self.waiting / self.seconds
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
        self._gaps.drop()
        self.waiting = self._gaps.seconds()


def _now() -> float:
    """Seconds, after the device has done everything asked of it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
