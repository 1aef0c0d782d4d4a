"""Composition as the command line does it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import hydra
import pytest
from hydra import initialize_config_dir
from omegaconf import DictConfig

from had.config import register

CONF = Path(__file__).parents[2] / "conf"

Compose = Callable[..., DictConfig]


@pytest.fixture(scope="module")
def compose() -> Iterator[Compose]:
    """`compose("task=digits", "sparsity.n=8")`: the configuration with its hydra node.

    Every time another copy: composing the same again takes ten times as long.
    """

    @cache
    def composed(*overrides: str) -> DictConfig:
        return hydra.compose("train", overrides=list(overrides), return_hydra_config=True)

    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield lambda *overrides: copy.deepcopy(composed(*overrides))
