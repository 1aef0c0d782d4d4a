"""Which choice wins, what defaults follow, and the way into plain dataclasses."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from had.attention.binarize import RELAXATIONS, SCALES
from had.config import RELAXATIONS as RELAXATION_NAMES
from had.config import SCALES as SCALE_NAMES
from had.config import StageWeights, to_dataclasses
from had.config.limits import PRECISIONS


@pytest.mark.parametrize(
    ("overrides", "schedule", "binarization"),
    [
        ((), "paper", "had"),
        (("binarization=had",), "paper", "had"),
        (("binarization=had_plus",), "mixed", "had_plus"),
        (("binarization=had_plus", "schedule=paper"), "paper", "had_plus"),
        (("schedule=paper", "binarization=had_plus"), "paper", "had_plus"),
        (("schedule=none",), "none", "had"),
        (("experiment=digits_topn8",), "mixed", "had_plus"),
        (("experiment=digits_topn8", "binarization=had"), "paper", "had"),
        (("experiment=digits_topn8", "schedule=none"), "none", "had_plus"),
    ],
)
def test_binarization_brings_its_schedule_unless_one_is_given(
    compose, overrides: tuple[str, ...], schedule: str, binarization: str
) -> None:
    cfg = compose(*overrides)
    assert (cfg.schedule.name, cfg.binarization.name) == (schedule, binarization)
    assert cfg.finetune.name == "finetune"


def test_the_command_line_wins_over_an_experiment(compose) -> None:
    assert compose("experiment=digits_topn8").sparsity.n == 8
    assert compose("experiment=digits_topn8").seed == 1
    assert compose("experiment=digits_topn8", "sparsity.n=4").sparsity.n == 4


def test_values_follow_the_task(compose) -> None:
    cfg = compose("task.topn=5", "task.epochs=2", "task.learning_rate=0.5")
    settings = to_dataclasses(cfg)
    assert settings.sparsity.n == 5
    assert (settings.schedule.epochs, settings.finetune.epochs) == (2, 2)
    assert settings.schedule.learning_rate == 0.5


@pytest.mark.parametrize(("text", "n"), [("8", 8), ("0.25", 0.25), ("1", 1), ("1.0", 1.0)])
def test_n_keeps_its_type(compose, text: str, n: float) -> None:
    value = to_dataclasses(compose(f"sparsity.n={text}")).sparsity.n
    assert (value, type(value)) == (n, type(n))


def test_paper_stages_are_the_published_ones(compose) -> None:
    stages = to_dataclasses(compose()).schedule.stages
    assert [stage.name for stage in stages] == ["soft", "sharp", "sign", "polish"]
    assert [stage.c for stage in stages] == [[5, 1], [1, 0.05], None, None]
    assert stages[-1].weights == StageWeights(attention=0, output=1, hidden=0, task=0)


def test_a_resolved_config_read_back_gives_the_same_settings(compose) -> None:
    cfg = compose("binarization=had_plus")
    groups = ("task", "sparsity", "binarization", "schedule", "finetune", "paths")
    text = OmegaConf.to_yaml(OmegaConf.masked_copy(cfg, groups), resolve=True)
    assert to_dataclasses(OmegaConf.create(text)) == to_dataclasses(cfg)


def test_every_run_has_its_own_directory(compose) -> None:
    directories = {compose().run_dir for _ in range(3)}
    assert len(directories) == 3
    assert all(directory.startswith("outputs/digits/vit_digits/") for directory in directories)


def test_hydra_runs_where_run_dir_says(compose) -> None:
    assert compose("run_dir=here").hydra.run.dir == "here"


def test_paths_come_from_the_environment(compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HAD_DATA", raising=False)
    monkeypatch.setenv("HAD_CACHE", "/somewhere")
    assert compose().paths.data == "data"
    assert compose().paths.cache == "/somewhere"
    monkeypatch.setenv("HAD_DATA", "/data")
    monkeypatch.delenv("HAD_CACHE")
    monkeypatch.setenv("HOME", "/home/me")
    assert compose("model=minilm").model.name == "sentence-transformers/all-MiniLM-L6-v2"
    assert compose().paths.cache == "/home/me/.cache/had"


def test_names_are_those_that_are_implemented() -> None:
    assert set(RELAXATION_NAMES) == set(RELAXATIONS)
    assert set(SCALE_NAMES) == set(SCALES)


def test_precisions_are_lightnings() -> None:
    from typing import get_args

    from lightning_fabric.plugins.precision.precision import _PRECISION_INPUT

    literals = (value for literal in get_args(_PRECISION_INPUT) for value in get_args(literal))
    assert set(PRECISIONS) == {str(value) for value in literals}


@pytest.mark.parametrize("recipe", ["sign_full", "binary_attention"])
def test_recipes_without_a_limit_keep_all_keys(compose, recipe: str) -> None:
    assert compose(f"binarization={recipe}").sparsity.n == 1.0
    assert compose(f"binarization={recipe}", "sparsity.n=5").sparsity.n == 5
