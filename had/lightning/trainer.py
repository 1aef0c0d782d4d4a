"""The configured trainer, and where and how precisely it computes."""

from __future__ import annotations

import os
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, ListConfig
from pytorch_lightning.plugins.environments import SLURMEnvironment

from had.build import build, build_all
from had.lightning.phase import Phase

# The loaders start where the checkpoint ends, and a short run may have fewer steps than a log line.
warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before")
warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")  # inside Lightning
warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than")
warnings.filterwarnings("ignore", message="Found .* module.* in eval mode")  # without dropout

_PRECISIONS = {"cuda": "bf16-mixed"}  # of a trainer whose precision is null; others are 32-true


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
