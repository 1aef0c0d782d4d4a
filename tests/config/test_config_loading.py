"""What the loader gives is what Hydra's own gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from had.config.loading import Loader, open_hydra

CONF = Path(__file__).parents[2] / "conf"
LINES = {
    "nothing": (),
    "a group and values": ("task=glue/sst2", "sparsity.n=4", "task.epochs=2"),
    "a value of a group before it": ("model.arguments.depth=2", "model=vit_digits"),
    "a mapping for a group": ("paths={data: here}", "paths.cache=there"),
    "an experiment": ("experiment=digits_topn8", "schedule=none"),
    "added and removed": ("+trainer.max_steps=3", "~callbacks.progress", "~logger"),
    "another package": ("schedule@finetune=none",),
    "about Hydra": ("hydra.mode=MULTIRUN", "hydra.job.env_copy=[HOME]", "hydra/output=default"),
    "twice": ("seed=1", "seed=2", "model=bert", "model=minilm"),
}


def both(line: tuple[str, ...], mode: RunMode) -> list[object]:
    """A command line by Hydra's loader, by ours, and by ours again, which has composed it."""
    with open_hydra(str(CONF)) as hydra:
        loader = hydra.config_loader
        assert isinstance(loader, Loader)
        loaders = (ConfigLoaderImpl(loader.config_search_path), loader, loader)
        found = [each.load_configuration("train", [*line], mode) for each in loaders]
        return [OmegaConf.to_yaml(cfg) for cfg in found]


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_run_is_composed_as_by_hydra(line: tuple[str, ...]) -> None:
    expected, first, second = both(line, RunMode.RUN)
    assert first == expected
    assert second == expected


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_sweep_is_composed_as_by_hydra(line: tuple[str, ...]) -> None:
    expected, first, second = both((*line, "sparsity.n=2,4", "binarization=a,b"), RunMode.MULTIRUN)
    assert first == expected
    assert second == expected


def test_files_of_a_further_place_are_found(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "one.yaml").write_text("# @package _global_\nseed: 5\n")
    expected, first, _ = both((f"hydra.searchpath=[{tmp_path}]", "+mine=one"), RunMode.RUN)
    assert "seed: 5" in str(first)
    assert first == expected


@pytest.mark.parametrize(
    "wrong", ["sparsity.n=1,2", "task=nothing", "sparsity.m=1", "seed=[", "~x"]
)
def test_what_hydra_refuses_is_refused_alike(wrong: str) -> None:
    with open_hydra(str(CONF)) as hydra:
        said = []
        for loader in (
            ConfigLoaderImpl(hydra.config_loader.config_search_path),
            hydra.config_loader,
        ):
            with pytest.raises(HydraException) as refusal:
                loader.load_configuration("train", [wrong], RunMode.RUN)
            said.append(str(refusal.value))
    assert said[0] == said[1]


def test_who_changes_a_configuration_changes_no_other() -> None:
    with open_hydra(str(CONF)) as hydra:
        first, second = (
            hydra.config_loader.load_configuration("train", [], RunMode.RUN) for _ in "ab"
        )
        first.seed = 3
        assert second.seed == 0
