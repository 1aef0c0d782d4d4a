"""Experiments become points; every committed experiment does."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from had.errors import HadError
from had.sweeps.points import Point, read_points

CONF = Path(__file__).parents[2] / "conf"
EXPERIMENTS = {  # group choices, seeds and Ns of each, counted by hand
    "headline": (4 * 2, 5, 1),
    "headline_sst2": (1 * 2, 3, 1),
    "recipes": (4 * 9, 5, 1),
    "recipes_sst2": (1 * 9, 3, 1),
    "topn": (4 * 2, 5, 7),
    "topn_sst2": (1 * 2, 3, 7),
    "heldout": (2 * 2, 3, 1),
}
FAST = ("trainer=cpu", "logger=none")


def points(*overrides: str) -> list[Point]:
    return read_points(overrides, str(CONF))


def values(count: str) -> int:
    """How many values a grid's text lists: "a,b" or "range(5)"."""
    return int(count[6:-1]) if count.startswith("range(") else len(count.split(","))


def test_the_product_is_in_order_with_the_last_key_fastest() -> None:
    made = points("task=digits", "sparsity.n=2,4", "seed=range(2)", "backend=eager")
    assert [(p.cfg.sparsity.n, p.cfg.seed) for p in made] == [(2, 0), (2, 1), (4, 0), (4, 1)]
    assert {p.overrides for p in made} == {("backend=eager",)}
    assert made[0].texts == ("task=digits", "sparsity.n=2", "seed=0", "backend=eager")
    assert made[0].identity == ("digits", "vit_digits", "had", "paper", 2, ("backend=eager",), 0)
    assert len({p.name for p in made}) == 4


def test_what_is_given_replaces_the_grid_and_experiments_unite() -> None:
    """Of the 40 points of headline and the 6 of headline_sst2 those with seeds 0 and 7: 8 + 8."""
    made = points("experiment=glue/headline,glue/headline_sst2", "seed=0,7", "task=glue/rte")
    assert [(p.cfg.task.name, p.cfg.seed) for p in made] == [("rte", 0), ("rte", 7)] * 2
    assert [p.cfg.binarization.name for p in made] == ["had"] * 2 + ["had_plus"] * 2
    assert [p.cfg.schedule.name for p in made] == ["paper"] * 2 + ["mixed"] * 2
    assert {p.cfg.model.label for p in made} == {"minilm"}


def test_how_a_setting_was_made_does_not_matter_to_identity() -> None:
    """An experiment, an override that repeats a default, and where a run goes."""
    axes = ("task=digits", "binarization=had_plus", "sparsity.n=8", "seed=1")
    (one,) = points("experiment=digits_topn8")
    (two,) = points(*axes, "task.epochs=20", "run_dir=/x", "paths.cache=/y", *FAST[1:])
    assert one.identity == two.identity
    assert one.overrides == two.overrides == ()
    (three,) = points(*axes, "task.epochs=31")
    assert three.overrides == ("task.epochs=31",)
    assert three.identity != one.identity


def test_points_that_train_the_same_teacher_are_told() -> None:
    """N, recipe and the student's schedule are not the teacher's business; data and seed are."""
    same = ("task=digits", "binarization=had,had_plus", "sparsity.n=2,4", "schedule.epochs=1,2")
    assert len({p.teacher for p in points(*same)}) == 1
    others = ("seed=0,1", "task.epochs=1,2", "finetune.dropout=true,false", "task.batch_size=8,9")
    assert len({p.teacher for p in points("task=digits", *others)}) == 2**4
    (given,) = points("task=digits", f"teacher={CONF}")
    assert given.teacher is None


def test_all_problems_come_at_once() -> None:
    with pytest.raises(HadError) as refusal:
        points("experiment=glue/headline", "task=glue/rte", "sparsity.n=8,0", "task.batch_size=0")
    message = str(refusal.value)
    assert message.startswith("2 problems in the configuration; nothing was started:")
    assert "sparsity.n=0: must be an integer of 1 or more" in message
    assert (
        "task.batch_size=0: must be a number greater than 0 (experiment=glue/headline)" in message
    )


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("experiment=glue/headlin", "no such experiment; did you mean glue/headline?"),
        ("binarization=had,hat", "binarization=hat: no such binarization"),
        ("sparsity.m=1,2", "sparsity.m=1: no such key"),
        ("sparsity.n=[", "sparsity.n=["),
        ("seed=interval(0,3)", "an interval has no values to list"),
        ("trainer.devices=2", "trainer.devices=2, trainer.strategy=auto: a job of a sweep"),
    ],
)
def test_what_does_not_compose_is_put_into_words(wrong: str, sentence: str) -> None:
    with pytest.raises(HadError, match="nothing was started") as refusal:
        points(wrong)
    assert sentence in str(refusal.value)


def test_every_experiment_is_counted() -> None:
    files = {file.stem for file in (CONF / "experiment" / "glue").glob("*.yaml")}
    assert files == set(EXPERIMENTS)
    for name, numbers in EXPERIMENTS.items():
        params = OmegaConf.load(CONF / "experiment" / "glue" / f"{name}.yaml").hydra.sweeper.params
        listed = [values(str(text)) for key, text in params.items() if key != "sparsity.n"]
        product = 1
        for count in listed:
            product *= count
        assert product == numbers[0] * numbers[1]
        assert values(str(params.get("sparsity.n", "30"))) == numbers[2]


def test_every_experiment_composes() -> None:
    """Every choice of groups; seeds and Ns are numbers that change nothing about composition.

    With one seed recipes has 36 points and recipes_sst2 9, headline's are among them, heldout has
    4; the Ns of the topn experiments are their own, so N = 4 adds theirs: 8 and 2.
    """
    names = [f"glue/{name}" for name in EXPERIMENTS]
    at_30 = [f"experiment={','.join(name for name in names if 'topn' not in name)}", "seed=0"]
    at_4 = ["experiment=glue/topn,glue/topn_sst2", "seed=0", "sparsity.n=4"]
    assert len(points(*at_30)) == 36 + 9 + 4
    made = points(*at_4)
    assert len(made) == 8 + 2
    assert all(p.overrides == () for p in made)
