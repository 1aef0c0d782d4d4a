"""The loggers of a run: one set for all of its phases, opened and closed once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger

from had.build import build_all
from had.lightning.fit import Interrupted


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
