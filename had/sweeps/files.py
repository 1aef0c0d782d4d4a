"""Sweep files: those of Weights & Biases, searched without its server as well."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from had.config.wording import numbered, one_of
from had.errors import HadError
from had.sweeps.parameters import Choice, Parameter, read_parameter

log = logging.getLogger(__name__)

METHODS = ("grid", "random", "bayes")
GOALS = ("minimize", "maximize")
SUFFIXES = (".yaml", ".yml")

_OF_THE_AGENT = ("logger", "resume", "run_dir")  # where a run goes: a local sweep's own business
_HERE_ALONE = {"early_terminate": "every point runs to its end"}


@dataclass(frozen=True)
class Metric:
    """What a search is for.

    Attributes:
        name: of a number in the records, such as `score/drop`.
        goal: one of `GOALS`.
    """

    name: str
    goal: str


@dataclass(frozen=True)
class SweepFile:
    """A sweep file as a search needs it.

    Attributes:
        path: of the file.
        method: one of `METHODS`.
        metric: None where the file has none.
        parameters: by key, in the file's order.
        overrides: what its command gives every run beside the parameters.
        cap: how many combinations to try at most (`run_cap`); None: not said.
    """

    path: Path
    method: str
    metric: Metric | None
    parameters: Mapping[str, Parameter]
    overrides: tuple[str, ...] = ()
    cap: int | None = None


def is_sweep_file(argument: str) -> bool:
    """Whether an argument names a sweep file rather than a value."""
    return "=" not in argument and argument.endswith(SUFFIXES)


def read_sweep(path: Path) -> SweepFile:
    """Read a sweep file.

    Raises:
        HadError: it cannot be read, or the message numbers everything that is wrong with it.
    """
    content = _content(path)
    problems: list[str] = []
    parameters = _parameters(content.get("parameters"), problems)
    method = str(content.get("method"))
    if method == "grid":
        problems += _unlisted(parameters)
    elif method not in METHODS:
        problems.append(f"method={method}: must be {one_of(method, METHODS)}")
    metric = _metric(content.get("metric"), problems)
    if method == "bayes" and content.get("metric") is None:
        problems.append("metric is missing: bayes needs {name: score/drop, goal: minimize}")
    cap = content.get("run_cap")
    if cap is not None and (not isinstance(cap, int) or cap < 1):
        problems.append(f"run_cap={cap}: must be an integer of 1 or more")
    if problems:
        raise HadError(numbered([f"{path}: {problem}" for problem in problems]))
    for key, instead in _HERE_ALONE.items():
        if key in content:
            log.warning("%s: %s is ignored without the server: %s", path, key, instead)
    return SweepFile(path, method, metric, parameters, _overrides(content), cap)


def _content(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise HadError(f"{path}: not a readable sweep file ({error})") from error
    if not isinstance(content, dict):
        raise HadError(f"{path}: not a sweep file: it needs method, metric and parameters")
    return content


def _parameters(described: Any, problems: list[str]) -> dict[str, Parameter]:
    if not isinstance(described, Mapping) or not described:
        problems.append("parameters is missing: a mapping of keys to values, or min and max")
        return {}
    parameters = {}
    for key, description in described.items():
        try:
            parameters[str(key)] = parameter = read_parameter(description)
        except HadError as error:
            problems.append(f"parameters.{key}: {error}")
            continue
        problems += [_several(key, value) for value in parameter.corners() if _sweeps(key, value)]
    return parameters


def _sweeps(key: str, value: str) -> bool:
    """Whether Hydra takes a value for several; one it cannot read is reported with the points."""
    try:
        override = OverridesParser.create().parse_override(f"{key}={value}")
    except HydraException:
        return False
    return bool(override.is_sweep_override())


def _several(key: str, value: str) -> str:
    return f"parameters.{key}: {value} is several values to Hydra; list them apart, or as [a,b]"


def _unlisted(parameters: Mapping[str, Parameter]) -> list[str]:
    return [
        f"parameters.{key}: a grid needs values, not min and max"
        for key, parameter in parameters.items()
        if not isinstance(parameter, Choice)
    ]


def _metric(described: Any, problems: list[str]) -> Metric | None:
    if described is None:
        return None
    if not isinstance(described, Mapping) or not isinstance(described.get("name"), str):
        problems.append(f"metric={described}: must be {{name: score/drop, goal: minimize}}")
        return None
    goal = described.get("goal", GOALS[0])
    if goal not in GOALS:
        problems.append(f"metric.goal={goal}: must be {one_of(goal, GOALS)}")
    return Metric(described["name"], goal)


def _overrides(content: Mapping[str, Any]) -> tuple[str, ...]:
    """What stands on the command itself, but for what tells a run where to go."""
    words: Sequence[Any] = content.get("command") or ()
    given = [str(word) for word in words if "=" in str(word) and not str(word).startswith("${")]
    return tuple(text for text in given if text.partition("=")[0] not in _OF_THE_AGENT)
