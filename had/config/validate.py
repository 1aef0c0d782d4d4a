"""Everything that is wrong with a composed configuration, found before anything is touched.

Checked are values that are missing or cannot be resolved, the types of the typed groups, the keys
of every `_target_` against its signature, the rules of `had.config.rules` and `sweep_rules`, and
the task's own.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from had.build import build
from had.config import TYPED_GROUPS, TrainConfig
from had.config.binding import misfits, targets
from had.config.rules import RULES
from had.config.sweep_rules import BASIC_LAUNCHER, LAUNCHER_RULES, SWEEP_RULES
from had.config.values import Rule, Values
from had.config.wording import nearest, numbered
from had.errors import HadError
from had.hardware.spec import load_accelerator


def check(cfg: DictConfig) -> None:
    """Refuse a configuration that cannot be run.

    Raises:
        HadError: the message numbers everything that is wrong.
    """
    problems = validate(cfg)
    if problems:
        raise HadError(numbered(problems))


def validate(cfg: DictConfig) -> list[str]:
    """Everything that is wrong with a composed configuration, each in one sentence.

    Args:
        cfg: with its `hydra` node or, inside a job, without.
    """
    problems: list[str] = []
    values = _resolved(cfg, problems)
    problems += _mistyped(values)
    problems += _unfit(values)
    if not any(problem.startswith("task.") for problem in problems):
        problems += _refused_by_task(values)
    problems += refused_by_hardware(values)
    launched = _launched(cfg)
    problems += _unlaunchable(launched)
    for rule in [*RULES, *_sweep_rules(launched)]:
        problems += rule(values)
    return list(dict.fromkeys(problems))


def _resolved(cfg: DictConfig, problems: list[str]) -> Values:
    """The configuration as plain values; what has none is "???" and a problem."""
    return {str(key): _value(cfg, key, str(key), problems) for key in cfg if key != "hydra"}


def _value(node: DictConfig | ListConfig, key: Any, path: str, problems: list[str]) -> Any:
    try:
        value = node[key]
    except MissingMandatoryValue:
        problems.append(f"{path} has no value and needs one: {path}=<value>")
        return MISSING
    except OmegaConfBaseException as error:
        problems.append(f"{path}: {_first_line(error)}")
        return MISSING
    if isinstance(value, DictConfig):
        return {str(k): _value(value, k, f"{path}.{k!s}", problems) for k in value}
    if isinstance(value, ListConfig):
        return [_value(value, i, f"{path}.{i}", problems) for i in range(len(value))]
    return value


def _mistyped(values: Values) -> Iterator[str]:
    """Violations of the schema, which only a hand-made configuration or `+key=` can have.

    A group with one is emptied, so that the rules need not doubt the types of what they see.
    """
    known = [field.name for field in fields(TrainConfig)]
    for name in values:
        if name not in known:
            yield f"{name}: no such key{nearest(name, known)}"
    for name, schema in TYPED_GROUPS.items():
        try:
            OmegaConf.merge(OmegaConf.structured(schema), values.get(name, {}))
        except OmegaConfBaseException as error:
            yield f"{name}: {_first_line(error)}"
            values[name] = {}


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _launched(cfg: DictConfig) -> DictConfig | None:
    """The `hydra` node of a configuration or, inside a job, of the job; None without Hydra."""
    node = cfg.get("hydra")
    return HydraConfig.get() if node is None and HydraConfig.initialized() else node


def _unlaunchable(node: DictConfig | None) -> Iterator[str]:
    """A launcher that would not be asked, or is not there."""
    target = str(node.launcher.get("_target_")) if node is not None else BASIC_LAUNCHER
    if target == BASIC_LAUNCHER:
        return
    if node.mode != RunMode.MULTIRUN:
        yield "hydra/launcher: only the jobs of a sweep are launched; add -m"
    if target.startswith("hydra_plugins."):
        try:
            importlib.import_module(target.rpartition(".")[0])
        except ImportError:
            package = target.split(".")[1].replace("_", "-")
            yield f"hydra/launcher: it needs {package}; pip install 'had[cluster]'"


def _sweep_rules(node: DictConfig | None) -> list[Rule]:
    """The rules for several jobs, if that is what is going on."""
    if node is None or node.mode != RunMode.MULTIRUN:
        return []
    return [*SWEEP_RULES, *LAUNCHER_RULES.get(str(node.launcher.get("_target_")), ())]


def _unfit(values: Values) -> Iterator[str]:
    """Groups whose keys are not the arguments of their class."""
    for path, group in targets(values):
        yield from misfits(path, group)


def _refused_by_task(values: Values) -> list[str]:
    """What the task says about its own settings; making one reads no data."""
    try:
        build(values.get("task", {}))
    except HadError as error:
        return str(error).splitlines()
    return []


def refused_by_hardware(values: Values) -> Iterator[str]:
    """Accelerators that there are none of, or whose description is not valid."""
    group = values.get("hardware") or {}
    named = [("accelerators", name) for name in group.get("accelerators") or []]
    for key, name in [*named, ("baseline", group.get("baseline"))]:
        if name is None:
            continue
        try:
            load_accelerator(name)
        except HadError as error:
            yield f"hardware.{key}={name}: {error}"
