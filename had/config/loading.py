"""Hydra's way from a command line to a configuration, on which all files are read once.

Hydra composes the files of the chosen options, and then applies all other overrides. The first
takes a third of a second, the second some milliseconds, and a program asks more than once: to
check a command line, to run it, and again for every job of a sweep.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_automatic_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from had.config.schema import register

_FURTHER = "hydra.searchpath"  # further places of files
_DIRNAME = ("kv_sep", "item_sep", "exclude_keys")


@contextmanager
def open_hydra(config_path: str, config_dir: str | None = None) -> Iterator[Hydra]:
    """Hydra as hydra.main sets it up, on a configuration and, before it, a user's own.

    It composes the files of the same options once, see `Loader`.
    """
    register()
    search_path = create_automatic_config_search_path(None, "had.cli", config_path)
    if config_dir is not None:
        search_path.prepend(
            provider="command-line",
            path=f"file://{Path(config_dir).resolve()}",
            anchor=SearchPathQuery(provider="schema"),
        )
    try:
        hydra = Hydra("train", Loader(search_path))
        GlobalHydra.instance().initialize(hydra)
        yield hydra
    finally:
        GlobalHydra.instance().clear()


class _Files(ConfigRepository):
    """Hydra's files, of which each is parsed once; Hydra copies them whenever it composes."""

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        super().initialize_sources(config_search_path)
        self._parsed: dict[str, ConfigResult | None] = {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        if config_path not in self._parsed:
            self._parsed[config_path] = super().load_config(config_path)
        return copy.deepcopy(self._parsed[config_path])

    def __deepcopy__(self, memo: dict[int, object]) -> _Files:
        return copy.copy(self)  # which is changed by new sources alone, and these are its own


class Loader(ConfigLoaderImpl):
    """Gives what Hydra's own gives, but composes every set of options only once.

    Files that change while a program runs are not read again.

    Args:
        config_search_path: where the files lie.
    """

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self.repository = _Files(config_search_path)
        self._composed: dict[tuple[object, ...], DictConfig] = {}
        self._groups: dict[str, bool] = {}

    def _load_configuration_impl(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        parsed = OverridesParser.create().parse_overrides(overrides)
        if validate_sweep_overrides:
            self.validate_sweep_overrides_legal(parsed, run_mode, from_shell)
        single = [override for override in parsed if not override.is_sweep_override()]
        texts = tuple(str(each.input_line) for each in single if self._chooses_files(each))
        composed = self._of_files(config_name, texts, run_mode)
        if composed.hydra.searchpath or any(o.key_or_group == _FURTHER for o in single):
            # There may be groups in it that are not known here.
            return super()._load_configuration_impl(
                config_name, overrides, run_mode, from_shell, validate_sweep_overrides
            )
        cfg = copy.deepcopy(composed)
        values = [override for override in single if not self._chooses_files(override)]
        self._apply_overrides_to_config(values, cfg)
        _note(cfg, parsed)
        return cfg

    def _of_files(
        self, config_name: str | None, texts: tuple[str, ...], run_mode: RunMode
    ) -> DictConfig:
        key = (config_name, texts, run_mode)
        if key not in self._composed:
            self._composed[key] = super()._load_configuration_impl(
                config_name, list(texts), run_mode, validate_sweep_overrides=False
            )
        return self._composed[key]

    def _chooses_files(self, override: Override) -> bool:
        """Whether an override chooses an option of a config group; Hydra asks the same."""
        key = override.key_or_group
        if key not in self._groups:
            self._groups[key] = self.repository.group_exists(key)
        return self._groups[key] and not isinstance(override.value(), dict)


def _note(cfg: DictConfig, overrides: Sequence[Override]) -> None:
    """Write down what the configuration says of its command line and of the process."""
    of_hydra = [str(each.input_line) for each in overrides if each.is_hydra_override()]
    others = [override for override in overrides if not override.is_hydra_override()]
    job = cfg.hydra.job
    with open_dict(cfg.hydra):
        cfg.hydra.overrides.hydra = of_hydra
        cfg.hydra.overrides.task = [str(override.input_line) for override in others]
        cfg.hydra.runtime.cwd = os.getcwd()
        job.env_set.update({key: os.environ[key] for key in job.env_copy})
        job.override_dirname = get_overrides_dirname(
            others, **{key: job.config.override_dirname[key] for key in _DIRNAME}
        )
