"""Finds everything that is wrong with a command line before Hydra runs any of it.

Hydra composes or stops at the first error. Here, when a command line does not compose, its
overrides are tried one after the other, each on top of those that work, and every failure is put
into words. What does compose is validated. In a sweep every value of every swept key is tried, with
the others at their first values: the sum of the values, not their product.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hydra._internal.hydra import Hydra
from hydra._internal.utils import run_and_report
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from had.config.catalogue import options
from had.config.composing import Composer
from had.config.loading import open_hydra
from had.config.validate import validate
from had.config.wording import nearest

REFUSALS = (HydraException, OmegaConfBaseException, ValueError)  # what composing raises

Judge = Callable[[DictConfig], list[str]]


def preflight(
    args: Namespace,
    config_path: str,
    config_name: str,
    judge: Judge = validate,
    then: TaskFunction | None = None,
) -> list[str]:
    """Everything that is wrong with a command line, each in one sentence.

    Args:
        args: as parsed by Hydra's own parser.
        config_path: of hydra.main.
        config_name: of hydra.main.
        judge: what is wrong with a configuration that composes.
        then: what Hydra runs if nothing is wrong, on what has been composed already.

    Raises:
        SystemExit: as hydra.main does.
    """
    if args.config_dir is not None and not Path(args.config_dir).is_dir():
        return [f"--config-dir {args.config_dir}: there is no such directory"]
    with open_hydra(args.config_path or config_path, args.config_dir) as hydra:
        mode = RunMode.MULTIRUN if args.multirun else None
        inspection = _Inspection(hydra, args.config_name or config_name, mode, judge)
        problems = inspection.problems(args.overrides)
        if then is not None and not problems:
            inspection.start(then, args.overrides)
        return problems


def inspect(
    hydra: Hydra, config_name: str, mode: RunMode, overrides: list[str], judge: Judge = validate
) -> list[str]:
    """Everything that is wrong with overrides, each in one sentence."""
    return _Inspection(hydra, config_name, mode, judge).problems(overrides)


@dataclass(frozen=True)
class _Choice:
    """One override with all of its values.

    Attributes:
        key: what it overrides, without signs and package.
        root: the top-level key that it belongs to, or that its config group fills.
        group: whether it chooses an option of a config group.
        texts: one override a value, as Hydra's sweeper would write them.
    """

    key: str
    root: str
    group: bool
    texts: tuple[str, ...]


@dataclass
class _Inspection:
    """One command line under inspection.

    Attributes:
        mode: one run or a sweep; None if that is for the configuration to say.
        found: the problems, in the order they turned up.
        refused: overrides that do not compose, left out of everything that follows.
        lost: top-level keys whose group choice is among them.
        composer: composes them.
    """

    hydra: Hydra
    config_name: str
    mode: RunMode | None
    judge: Judge
    found: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    composer: Composer = field(init=False)

    def __post_init__(self) -> None:
        self.composer = Composer(self.hydra, self.config_name)

    @property
    def loader(self) -> ConfigLoader:
        return self.composer.loader

    def start(self, task: TaskFunction, overrides: list[str]) -> None:
        """Run a function on the configuration, or on those of a sweep's jobs, as hydra.main."""
        assert self.mode is not None
        begin = {RunMode.RUN: self.hydra.run, RunMode.MULTIRUN: self.hydra.multirun}[self.mode]
        given = [*overrides, f"hydra.mode={self.mode.name}"]
        run_and_report(lambda: begin(self.config_name, task, given))

    def _configured_mode(self, overrides: list[str]) -> RunMode:
        """One run, unless a configuration sets hydra.mode."""
        try:
            mode = self.composer.whole(overrides).hydra.mode
        except REFUSALS:  # does not compose, or not as one run
            mode = self.hydra.get_mode(self.config_name, overrides)
        return mode or RunMode.RUN

    def problems(self, overrides: list[str]) -> list[str]:
        self.mode = self.mode or self._configured_mode(overrides)
        given = [*overrides, *self._grid(overrides)]
        choices = [choice for text in given for choice in self._parse(text)]
        configs = [self._composed(job, choices) for job in _jobs(choices)]
        about_values = [line for cfg in configs if cfg is not None for line in self.judge(cfg)]
        # A group without its option fell back to another one; what that says of it means nothing.
        self.found += [line for line in about_values if not _mentions(line, self.lost)]
        return list(dict.fromkeys(self.found))

    def _grid(self, overrides: list[str]) -> list[str]:
        """What a sweep adds to its command line: an experiment's `hydra.sweeper.params`."""
        if self.mode != RunMode.MULTIRUN:
            return []
        try:
            parsed = OverridesParser.create(self.loader).parse_overrides(overrides)
            fixed = [str(each.input_line) for each in parsed if not each.is_sweep_override()]
            params = self._compose(fixed).hydra.sweeper.get("params") or {}
        except REFUSALS:
            return []  # the overrides themselves are to blame, which is found out next
        keys = {each.get_key_element() for each in parsed}
        return [f"{key}={value}" for key, value in params.items() if key not in keys]

    def _parse(self, text: str) -> list[_Choice]:
        try:
            override = OverridesParser.create(self.loader).parse_override(text)
        except HydraException as error:
            self.found.append(f"{text}: not of the form key=value ({_first_line(error)})")
            return []
        if override.is_sweep_override() and self.mode != RunMode.MULTIRUN:
            self.found.append(f"{text}: several values are a sweep: add -m; a list is key=[a,b]")
            return []
        texts = _values(override)
        group = bool(self.loader.get_group_options(override.key_or_group))
        root = override.package or override.key_or_group if group else override.key_or_group
        return [_Choice(override.key_or_group, root.split(".")[0], group, texts)]

    def _compose(self, overrides: list[str]) -> DictConfig:
        cfg = self.composer.whole(overrides)
        with open_dict(cfg):
            cfg.hydra.mode = cfg.hydra.mode or self.mode
        return cfg

    def _composed(self, job: list[str], choices: list[_Choice]) -> DictConfig | None:
        """The configuration of one job, without the overrides that are refused."""
        wanted = [text for text in job if text not in self.refused]
        try:
            return self._compose(wanted)
        except REFUSALS as error:
            accepted = self._sift(wanted, {t: c for c in choices for t in c.texts})
            if accepted is None or len(accepted) == len(wanted):  # no single one is to blame
                self.found.append(_first_line(error))
                return None
        return self._compose(accepted)

    def _sift(self, texts: list[str], choices: dict[str, _Choice]) -> list[str] | None:
        """The overrides that compose with those before them, group choices first.

        None if the configuration does not even compose without any.
        """
        if not self._composes([]):
            return None
        ordered = sorted(texts, key=lambda text: not choices[text].group)
        groups = [text for text in ordered if choices[text].group]
        accepted = groups if self._composes(groups) else []
        for text in ordered[len(accepted) :]:
            choice = choices[text]
            if choice.root in self.lost and not choice.group:
                continue  # its group is not there to judge it by
            try:
                self._compose([*accepted, text])
                accepted.append(text)
            except REFUSALS as error:
                self._refuse(text, choice, error, accepted)
        return accepted

    def _composes(self, overrides: list[str]) -> bool:
        try:
            self._compose(overrides)
        except REFUSALS:
            return False
        return True

    def _refuse(self, text: str, choice: _Choice, error: Exception, accepted: list[str]) -> None:
        self.refused.add(text)
        if choice.group:
            self.lost.add(choice.root)
        base = self._compose(accepted)
        self.found.append(f"{text}: {self._reason(text, choice, error, base)}")

    def _reason(self, text: str, choice: _Choice, error: Exception, base: DictConfig) -> str:
        if isinstance(error, MissingConfigException) and choice.group:
            return self._unknown_option(text, choice, error)
        cause = error.__cause__ or error
        if isinstance(cause, ConfigKeyError | ConfigAttributeError):
            return _unknown_key(choice.key, base, self._groups())
        return _first_line(cause)

    def _unknown_option(self, text: str, choice: _Choice, error: Exception) -> str:
        known = options(self.loader, choice.key)
        wanted = text.partition("=")[2]
        if wanted in known:  # it is there, but asks for something that is not
            return _first_line(error)
        listed = ", ".join(known)
        return f"no such {choice.key}{nearest(wanted, known)} (there are {listed})"

    def _groups(self) -> list[str]:
        return self.loader.list_groups("")


def _values(override: Override) -> tuple[str, ...]:
    """An override as one override a value, the way Hydra's sweeper writes them."""
    if not override.is_sweep_override():
        return (str(override.input_line),)
    if not override.is_discrete_sweep():
        return ()  # an interval: only its sweeper knows the values
    key = override.get_key_element()
    return tuple(f"{key}={value}" for value in override.sweep_string_iterator())


def _jobs(choices: list[_Choice]) -> Iterator[list[str]]:
    """All first values, then every other value in their place, one at a time."""
    swept = [choice for choice in choices if choice.texts]
    first = [choice.texts[0] for choice in swept]
    yield first
    for index, choice in enumerate(swept):
        for text in choice.texts[1:]:
            yield [*first[:index], text, *first[index + 1 :]]


def _mentions(line: str, roots: set[str]) -> bool:
    return any(re.search(rf"\b{re.escape(root)}\b[.=]", line) for root in roots)


def _unknown_key(key: str, cfg: DictConfig, groups: list[str]) -> str:
    """What to say of a key that the configuration does not have."""
    parent, node, name = _deepest(key, cfg)
    known = [str(child) for child in node if child != "hydra"] if node is not None else []
    close = nearest(name, [*known, *([] if parent else groups)])
    where = f"{parent} has" if parent else "there is"
    note = f"no such key: {where} no {name}{close}"
    if not close and isinstance(node, DictConfig) and "_target_" in node:
        target = node["_target_"]
        return f"{note} (another argument of {target} is added with +{key}=<value>)"
    return note if close else f"{note}; known: {', '.join(known)}"


def _deepest(key: str, cfg: DictConfig) -> tuple[str, DictConfig | None, str]:
    """How far a dotted key exists: the dotted part, its node, and the name that is not in it."""
    parent, node = "", cfg
    for name in key.split("."):
        child = OmegaConf.select(cfg, f"{parent}.{name}" if parent else name)
        if child is None or not OmegaConf.is_config(child):
            return parent, node if OmegaConf.is_dict(node) else None, name
        parent, node = f"{parent}.{name}" if parent else name, child
    return parent, node, ""


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
