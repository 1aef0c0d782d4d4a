"""Composed configurations, and what sets one apart from others with the same axes.

A run is told by its axes: task, model, recipe, schedule, N and seed. `further_settings` lists
whatever else differs from the defaults, however it was set: by the command line or an experiment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from had.config.leaves import WITHOUT_EFFECT, leaves
from had.paths import CONFIG_NAME

AXES = ("task", "model", "binarization", "schedule")  # config groups whose choice is an axis
_TOLD_BY_AXES = (
    *("seed", "sparsity.n", "task.name", "model.label", "binarization.name", "schedule.name"),
)


def axes(cfg: DictConfig) -> dict[str, Any]:
    """The axes of a run but its seed, as its record names them."""
    return {
        "task": cfg.task.name,
        "model": cfg.model.label,
        "binarization": cfg.binarization.name,
        "schedule": cfg.schedule.name,
        "n": cfg.sparsity.n,
    }


@dataclass(frozen=True)
class Composed:
    """A configuration and what Hydra knows about it.

    Attributes:
        cfg: without its `hydra` node.
        choices: the option chosen in every config group.
        grid: what to sweep by default, key to values, an experiment's `hydra.sweeper.params`.
    """

    cfg: DictConfig
    choices: Mapping[str, Any]
    grid: Mapping[str, str]


class Composer:
    """Composes configurations, and knows what is usual for the axes of each.

    Args:
        hydra: initialised on a search path.
        config_name: the primary file.
    """

    def __init__(self, hydra: Hydra, config_name: str = CONFIG_NAME) -> None:
        self.loader = hydra.config_loader
        self._config_name = config_name
        self._usual: dict[tuple[str, ...], dict[str, Any]] = {}

    def parse(self, texts: Sequence[str]) -> list[Override]:
        """Overrides as Hydra reads them; raises what Hydra raises."""
        return OverridesParser.create(self.loader).parse_overrides(list(texts))

    def whole(self, texts: Sequence[str]) -> DictConfig:
        """The configuration of a command line and its `hydra` node; raises what Hydra raises."""
        return self.loader.load_configuration(self._config_name, list(texts), RunMode.RUN)

    def __call__(self, texts: Sequence[str]) -> Composed:
        """The same in parts."""
        cfg = self.whole(texts)
        choices, grid = dict(cfg.hydra.runtime.choices), cfg.hydra.sweeper.get("params") or {}
        with open_dict(cfg):
            del cfg["hydra"]
        return Composed(cfg, choices, dict(grid))

    def usual(self, axes: tuple[str, ...]) -> dict[str, Any]:
        """Dotted keys and values of the defaults of a few group choices."""
        if axes not in self._usual:
            self._usual[axes] = _compared(self(axes).cfg)
        return self._usual[axes]


def further_settings(cfg: DictConfig, choices: Mapping[str, Any], compose: Composer) -> list[str]:
    """What sets a configuration apart from its axes' defaults, as sorted overrides.

    Args:
        cfg: composed, with its interpolations.
        choices: the option chosen in every config group, `hydra.runtime.choices`.
        compose: on the same search path.
    """
    theirs = compose.usual(tuple(f"{axis}={choices[axis]}" for axis in AXES))
    ours = _compared(cfg)
    changed = [f"{key}={_text(ours[key])}" for key in ours if ours[key] != theirs.get(key, _ABSENT)]
    gone = [key for key in theirs if not any(f"{key}.".startswith(f"{k}.") for k in ours)]
    return sorted([*changed, *(f"~{key}" for key in gone)])


_ABSENT = object()


def _compared(cfg: DictConfig) -> dict[str, Any]:
    return dict(leaves(OmegaConf.to_container(cfg), (*_TOLD_BY_AXES, *WITHOUT_EFFECT)))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
