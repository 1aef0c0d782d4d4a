"""The configuration of one run from its overrides, checked as the command line checks it."""

from __future__ import annotations

from dataclasses import dataclass

from hydra.types import RunMode
from omegaconf import DictConfig

from had.config.composing import Composer, further_settings
from had.config.loading import open_hydra
from had.config.preflight import inspect
from had.config.wording import numbered
from had.errors import HadError
from had.paths import CONFIG_NAME, hydra_config_path


@dataclass(frozen=True)
class Request:
    """One run that was asked for.

    Attributes:
        cfg: its configuration, without the `hydra` node; the run directory has its date.
        overrides: what sets it apart from its axes' defaults, for the record.
    """

    cfg: DictConfig
    overrides: tuple[str, ...]


def request(*overrides: str, config_path: str | None = None) -> Request:
    """Compose a run and check it; nothing is read but YAML.

    Args:
        overrides: as on the command line, "task=glue/sst2" or "sparsity.n=8".
        config_path: a directory or "pkg://..."; None for the configuration of this package.

    Raises:
        HadError: the message numbers everything that is wrong.
    """
    with open_hydra(config_path or hydra_config_path()) as hydra:
        problems = inspect(hydra, CONFIG_NAME, RunMode.RUN, list(overrides))
        if problems:
            raise HadError(numbered(problems))
        compose = Composer(hydra)
        composed = compose(overrides)
        further = further_settings(composed.cfg, composed.choices, compose)
    composed.cfg.run_dir = composed.cfg.run_dir  # the date in it is that of now, not of later
    return Request(composed.cfg, tuple(further))


def compose(*overrides: str) -> DictConfig:
    """The configuration that `had train` makes of the same overrides.

    Raises:
        HadError: the message numbers everything that is wrong.
    """
    return request(*overrides).cfg
