"""A tiny run on the embedded digits, and callbacks that end it in unpleasant ways."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra import compose
from omegaconf import DictConfig

from had.config.loading import open_hydra

CONF = Path(__file__).resolve().parents[2] / "conf"
TINY = (
    "model.arguments.embed_dim=16",
    "model.arguments.depth=2",
    "model.arguments.patch_size=4",
    "task.epochs=1",
    "schedule.epochs=1.5",
    "task.batch_size=128",
    "binarization.calibration_batches=2",
    "sparsity.n=2",
    "trainer=cpu",
    "trainer.enable_progress_bar=false",
    "logger=none",
)


def tiny(directory: Path, *overrides: str) -> DictConfig:
    """The whole configuration of a run of seconds, with cache and results below `directory`."""
    return configured(directory, *TINY, *overrides)


def configured(directory: Path, *overrides: str) -> DictConfig:
    """A configuration with cache and results below `directory`."""
    with open_hydra(str(CONF)):
        return compose(
            "train",
            overrides=[
                f"run_dir={directory / 'run'}",
                f"paths.cache={directory / 'cache'}",
                *overrides,
            ],
        )


class At(pl.Callback):
    """Does something once, after a given step of a given phase."""

    def __init__(self, step: int, phase: str) -> None:
        self.step, self.phase = step, phase

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step == self.step and Path(trainer.default_root_dir).name == self.phase:
            self.act()

    def act(self) -> None:
        raise NotImplementedError


class PowerCut(At):
    """Ends the process's work without a chance to save, as kill -9 does."""

    def act(self) -> None:
        raise ConnectionAbortedError("the power is gone")


class Signal(At):
    """Sends SIGTERM to this process."""

    def act(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


class Preemption(At):
    """Sends this process what submitit sends before the time of a job is up."""

    def act(self) -> None:
        os.kill(os.getpid(), signal.SIGUSR2)
