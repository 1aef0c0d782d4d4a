"""Composition as the command line does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import hydra
import pytest
from omegaconf import DictConfig

from had.config.loading import open_hydra

CONF = Path(__file__).parents[2] / "conf"

Compose = Callable[..., DictConfig]


@pytest.fixture(scope="module")
def compose() -> Iterator[Compose]:
    """`compose("task=digits", "sparsity.n=8")`: the configuration with its hydra node."""
    with open_hydra(str(CONF)):
        yield lambda *overrides: hydra.compose("train", [*overrides], return_hydra_config=True)
