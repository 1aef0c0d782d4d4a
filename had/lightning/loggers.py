"""The loggers of a run: one set for all of its phases, opened and closed once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger

from had.build import build_all


@contextmanager
def open_loggers(cfg: DictConfig) -> Iterator[list[Logger]]:
    """The configured loggers, given the resolved configuration first and closed in any case.

    An open W&B run would silently be taken over by the next job of a sweep, so it is finished here.
    """
    loggers: list[Logger] = build_all(cfg.logger)
    settings = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(settings, dict)
    try:
        for logger in loggers:
            logger.log_hyperparams(settings)
        yield loggers
    finally:
        for logger in loggers:
            finish = getattr(getattr(logger, "experiment", None), "finish", None)
            if finish is not None:
                finish()


def log_final(loggers: list[Logger], metrics: dict[str, float]) -> None:
    """Hand the content of metrics.json to every logger, where sweeps look for the score."""
    for logger in loggers:
        logger.log_metrics(metrics)
        logger.save()
