"""Composed configurations, and what sets one apart from others with the same axes.

A run is told by its axes: task, model, recipe, schedule, N and seed. `further_settings` lists
whatever else differs from the defaults, however it was set: by the command line or an experiment.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
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
    """Composes configurations, every set of group choices only once.

    Args:
        hydra: initialised on a search path.
        config_name: the primary file.
    """

    def __init__(self, hydra: Hydra, config_name: str = CONFIG_NAME) -> None:
        self.loader = hydra.config_loader
        self._hydra, self._config_name = hydra, config_name
        self._files: dict[tuple[str, ...], DictConfig] = {}
        self._composed: dict[tuple[str, ...], Composed] = {}
        self._groups: dict[str, bool] = {}
        self._usual: dict[tuple[str, ...], dict[str, Any]] = {}

    def parse(self, texts: Sequence[str]) -> list[Override]:
        """Overrides as Hydra reads them; raises what Hydra raises."""
        return OverridesParser.create(self.loader).parse_overrides(list(texts))

    def __call__(self, texts: Sequence[str]) -> Composed:
        """The configuration of a command line; raises what Hydra raises.

        Hydra applies values after it has composed the groups, so they can be applied to a copy.
        """
        groups, values = self._groups_and_values(texts)
        if groups not in self._composed:
            self._composed[groups] = _parted(copy.deepcopy(self._of_files(groups)))
        kept = self._composed[groups]
        return Composed(_with_values(kept.cfg, values), kept.choices, kept.grid)

    def whole(self, texts: Sequence[str]) -> DictConfig:
        """The same with its `hydra` node, but for what that says of the command line itself."""
        groups, values = self._groups_and_values(texts)
        return _with_values(self._of_files(groups), values)

    def usual(self, axes: tuple[str, ...]) -> dict[str, Any]:
        """Dotted keys and values of the defaults of a few group choices."""
        if axes not in self._usual:
            self._usual[axes] = _compared(self(axes).cfg)
        return self._usual[axes]

    def _groups_and_values(self, texts: Sequence[str]) -> tuple[tuple[str, ...], list[Override]]:
        overrides = self.parse(texts)
        self.loader.validate_sweep_overrides_legal(overrides, RunMode.RUN, from_shell=True)
        groups = tuple(str(o.input_line) for o in overrides if self._decides_files(o))
        return groups, [override for override in overrides if not self._decides_files(override)]

    def _of_files(self, groups: tuple[str, ...]) -> DictConfig:
        if groups not in self._files:
            self._files[groups] = self._hydra.compose_config(
                self._config_name, list(groups), RunMode.RUN, with_log_configuration=False
            )
        return self._files[groups]

    def _decides_files(self, override: Override) -> bool:
        """Whether an override chooses an option of a config group, or is about Hydra itself."""
        key = override.key_or_group
        if key not in self._groups:
            options = self.loader.get_group_options(key)
            self._groups[key] = bool(options) or key.startswith("hydra.")
        return self._groups[key]


def _parted(cfg: DictConfig) -> Composed:
    choices, grid = dict(cfg.hydra.runtime.choices), cfg.hydra.sweeper.get("params") or {}
    with open_dict(cfg):
        del cfg["hydra"]
    return Composed(cfg, choices, dict(grid))


def _with_values(cfg: DictConfig, values: list[Override]) -> DictConfig:
    changed = copy.deepcopy(cfg)
    ConfigLoaderImpl._apply_overrides_to_config(values, changed)
    return changed


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
