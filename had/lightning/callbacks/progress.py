"""A Rich progress bar that names the stage and refreshes rarely enough to cost nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar

from had.lightning.module import DistillationModule


class Progress(RichProgressBar):
    """Steps, elapsed and remaining time, the stage and the loss.

    Args:
        refresh_rate: batches between two updates.
    """

    def __init__(self, refresh_rate: int = 20) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=True)

    def _get_train_description(self, current_epoch: int) -> str:
        # All passes over the data are one epoch of the trainer: the model's role says more.
        role = Path(self.trainer.default_root_dir).name
        return role.ljust(len(self.validation_description))

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if isinstance(pl_module, DistillationModule) and trainer.training:
            # Not by self.log(prog_bar=True): it reads the value in every step, and waits for it.
            if pl_module.shown_loss is not None:
                metrics["loss"] = pl_module.shown_loss
            metrics["stage"] = pl_module.schedule.stage(pl_module.global_step).name
        return metrics
