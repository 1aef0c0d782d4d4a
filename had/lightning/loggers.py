"""The loggers of a run: one set for all of its phases, opened and closed once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from had.build import build_all
from had.errors import HadError
from had.lightning.fit import Interrupted

_WITHOUT_SERVER = ("offline", "dryrun", "disabled")  # modes of W&B


@rank_zero_only
def log_in(cfg: DictConfig) -> None:
    """Log in where a logger will need it: W&B would find out only after all data are loaded.

    No run is begun. W&B asks its server whether the key is good, and in a terminal for the key.

    Raises:
        HadError: there are no credentials, they are refused, or W&B is not installed.
    """
    for name, node in (cfg.logger or {}).items():
        if node and node.get("_target_", "").endswith(".WandbLogger") and _needs_server(node):
            _log_in_to_wandb(name)


def _needs_server(node: DictConfig) -> bool:
    return node.get("mode") not in _WITHOUT_SERVER and not node.get("offline")


def _log_in_to_wandb(name: str) -> None:
    try:
        import wandb
    except ImportError as error:
        raise HadError(f"logger={name}: {error}; pip install wandb, or logger=csv") from error
    try:
        wandb.login()
    except wandb.Error as error:
        raise HadError(
            f"logger={name}: {error} Run `wandb login`, set WANDB_API_KEY, or keep the run on this "
            "machine with logger=wandb_offline"
        ) from error


@contextmanager
def open_loggers(cfg: DictConfig) -> Iterator[list[Logger]]:
    """The configured loggers, given the resolved configuration first and closed in any case.

    An open W&B run would silently be taken over by the next job of a sweep, so it is finished here:
    as failed where the run failed, and as pre-empted where a signal ended it, so that the server of
    a sweep hands it out again.
    """
    loggers: list[Logger] = build_all(cfg.logger)
    settings = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(settings, dict)
    status = 1
    try:
        for logger in loggers:
            logger.log_hyperparams(settings)
        yield loggers
        status = 0
    except Interrupted:
        _call(loggers, "mark_preempting")
        raise
    finally:
        _call(loggers, "finish", exit_code=status)


def _call(loggers: list[Logger], name: str, **arguments: Any) -> None:
    """Call a method of what is behind each logger, where there is such a method: that of W&B."""
    for logger in loggers:
        method = getattr(getattr(logger, "experiment", None), name, None)
        if method is not None:
            method(**arguments)


def log_final(loggers: list[Logger], metrics: dict[str, float]) -> None:
    """Hand the content of metrics.json to every logger, where sweeps look for the score."""
    for logger in loggers:
        logger.log_metrics(metrics)
        logger.save()
