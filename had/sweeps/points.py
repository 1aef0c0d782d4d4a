"""From experiments and overrides to points, each a run that could start at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from hydra._internal.hydra import Hydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from had.config.composing import Composer, axes, further_settings
from had.config.loading import open_hydra
from had.config.preflight import REFUSALS, inspect
from had.config.sweep_rules import SWEEP_RULES, one_device_a_job
from had.config.validate import validate
from had.config.wording import numbered
from had.errors import HadError
from had.paths import CONFIG_NAME, hydra_config_path
from had.results.records import Identity, identity_of, record_name

EXPERIMENT = "experiment"
_TEACHER_SETTINGS = ("accumulate_grad_batches", "gradient_clip_val", "precision")  # of the trainer


@dataclass(frozen=True, eq=False)
class Point:
    """One run of a sweep.

    Attributes:
        texts: the command line that makes it.
        cfg: its configuration, without the `hydra` node.
        overrides: what sets it apart from its axes' defaults, as its record says.
        name: of its record's file and its run directory; no two points share one.
        identity: as that of its record.
        teacher: the same for all points that train the same teacher; None if theirs is given.
    """

    texts: tuple[str, ...]
    cfg: DictConfig
    overrides: tuple[str, ...]
    name: str
    identity: Identity
    teacher: str | None


def read_points(overrides: Sequence[str], config_path: str | None = None) -> list[Point]:
    """The points of a command line, in its order, each of them once.

    Args:
        overrides: Hydra's, sweeping ones among them; `experiment=a,b` is the union of both, and
            every experiment brings the grid under its `hydra.sweeper.params`.
        config_path: a directory or "pkg://..."; None for the configuration of this package.

    Raises:
        HadError: the message numbers everything that is wrong with any of them.
    """
    return read_lines([overrides], config_path)


def read_lines(lines: Iterable[Sequence[str]], config_path: str | None = None) -> list[Point]:
    """The points of several command lines, each of them once; see `read_points`."""
    with open_hydra(config_path or hydra_config_path()) as hydra:
        reader = _Reader(hydra)
        points = [point for line in lines for point in reader.points(line)]
    if reader.problems:
        raise HadError(numbered(list(dict.fromkeys(reader.problems))))
    return list({point.identity: point for point in reversed(points)}.values())[::-1]


class _Reader:
    """Reads command lines, collecting what is wrong with them.

    Attributes:
        problems: one sentence each, some of them repeatedly.
    """

    def __init__(self, hydra: Hydra) -> None:
        self._hydra, self._compose = hydra, Composer(hydra)
        self.problems: list[str] = []

    def points(self, overrides: Sequence[str]) -> list[Point]:
        points: dict[Identity, Point] = {}
        for line in self._command_lines(overrides):
            for texts in self._jobs(line):
                try:
                    point = self._point(texts)
                except REFUSALS:
                    self._explain(line, f"{' '.join(texts)}: does not compose")
                    break
                points.setdefault(point.identity, point)
        return list(points.values())

    def _command_lines(self, overrides: Sequence[str]) -> Iterator[list[str]]:
        """One an experiment: it, its grid, and what was given in place of the grid."""
        parsed = self._parsed(overrides)
        named = [each for each in parsed if each.key_or_group == EXPERIMENT]
        given = {o.get_key_element(): str(o.input_line) for o in parsed if o not in named}
        for experiment in [text for each in named for text in _values(each)] or [""]:
            chosen = [experiment] if experiment else []
            yield [*chosen, *(self._grid(chosen) | given).values()]

    def _grid(self, chosen: list[str]) -> dict[str, str]:
        """The grid of an experiment by key; of one that does not compose there is none."""
        try:
            grid = self._compose(chosen).grid
        except REFUSALS:
            return {}
        return {str(key): f"{key}={value}" for key, value in grid.items()}

    def _jobs(self, line: list[str]) -> Iterator[tuple[str, ...]]:
        """The product of a command line's values, the last one fastest."""
        parsed = self._parsed(line)
        intervals = [o for o in parsed if o.is_sweep_override() and not o.is_discrete_sweep()]
        for override in intervals:
            self.problems.append(f"{override.input_line}: an interval has no values to list")
        if parsed and not intervals:
            yield from product(*(_values(override) for override in parsed))

    def _parsed(self, texts: Sequence[str]) -> list[Override]:
        try:
            return self._compose.parse(texts)
        except HydraException as error:
            self._explain(list(texts), str(error))
            return []

    def _explain(self, line: list[str], otherwise: str) -> None:
        """Hydra stops at the first error; this names every one, in full."""
        found = inspect(self._hydra, CONFIG_NAME, RunMode.MULTIRUN, line)
        self.problems += found or [otherwise]

    def _point(self, texts: tuple[str, ...]) -> Point:
        composed = self._compose(texts)
        cfg = composed.cfg
        overrides = tuple(further_settings(cfg, composed.choices, self._compose))
        told = {**axes(cfg), "seed": cfg.seed, "overrides": list(overrides)}
        self.problems += [_placed(problem, texts) for problem in _problems(cfg)]
        name = record_name(told).removesuffix(".json")
        return Point(texts, cfg, overrides, name, identity_of(told), _teacher(cfg))


def _values(override: Override) -> list[str]:
    """An override as one override a value, the way Hydra's own sweeper writes them."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    key = override.get_key_element()
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _problems(cfg: DictConfig) -> list[str]:
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    rules = (*SWEEP_RULES, one_device_a_job)  # a worker is one process with one device
    return [*validate(cfg), *(line for rule in rules for line in rule(values))]


def _placed(problem: str, texts: tuple[str, ...]) -> str:
    """A problem with the experiment that has it, which the user may not have written."""
    experiment = next((text for text in texts if text.startswith(f"{EXPERIMENT}=")), None)
    return f"{problem} ({experiment})" if experiment else problem


def _teacher(cfg: DictConfig) -> str | None:
    """Everything that the training of a teacher depends on, as text.

    More than its hash in the cache: that is only known once the data have been read.
    """
    if cfg.teacher is not None:
        return None
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    task = {key: value for key, value in values["task"].items() if key != "topn"}
    trainer = {key: values["trainer"].get(key) for key in _TEACHER_SETTINGS}
    parts = [task, values["model"], values["finetune"], trainer, values["seed"]]
    return json.dumps(parts, sort_keys=True, default=str)
