"""Where the points of a search come from."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from had.errors import HadError
from had.sweeps import bayes, search
from had.sweeps.bayes import Bayes
from had.sweeps.files import Metric, SweepFile
from had.sweeps.parameters import Choice, read_parameter
from had.sweeps.points import Point
from had.sweeps.pool import Progress
from had.sweeps.search import Space, drawn, grid

DROP = Metric("score/drop", "minimize")
PARAMETERS = {
    "x": read_parameter({"min": 0.0, "max": 1.0}),
    "kind": Choice(("good", "bad")),
}


def made(lines: Iterable[Sequence[str]], config_path: str | None = None) -> list[Point]:
    """Points without a configuration, told apart by their texts."""
    cfg = OmegaConf.create()
    return [Point(tuple(line), cfg, (), "-".join(line), tuple(line), None) for line in lines]


@pytest.fixture(autouse=True)
def _without_hydra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "read_lines", made)
    monkeypatch.setattr(bayes, "read_lines", made)


def space(*given: str, parameters: Any = PARAMETERS) -> Space:
    return Space(SweepFile(Path("x.yaml"), "random", None, parameters, ("trainer=cpu",)), given)


def test_what_is_given_replaces_what_the_file_says() -> None:
    """Of the file's parameters and of what its command adds."""
    line = space("kind=bad", "trainer=gpu", "seed=0,1").line({"x": "0.5"})
    assert line == ["x=0.5", "kind=bad", "trainer=gpu", "seed=0,1"]
    assert set(space("kind=bad").parameters) == {"x"}


def test_a_grid_is_one_command_line() -> None:
    values = {"task": Choice(("a", "b")), "n": Choice(("[1, 2]", "3"))}
    (point,) = grid(space("seed=0,1", parameters=values)).points
    assert point.texts == ("task=a,b", "n=[1, 2],3", "trainer=cpu", "seed=0,1")


def test_draws_repeat_with_their_seed_and_begin_those_of_a_larger_count() -> None:
    ten, four = drawn(space(), 10, seed=3).points, drawn(space(), 4, seed=3).points
    assert [point.texts for point in ten[:4]] == [point.texts for point in four]
    assert len({point.texts for point in ten}) == 10
    assert drawn(space(), 4, seed=4).points[0].texts != four[0].texts


def test_no_combination_is_drawn_twice(caplog: pytest.LogCaptureFixture) -> None:
    points = drawn(space(parameters={"kind": Choice(("good", "bad"))}), 5, seed=0).points
    assert {point.texts[0] for point in points} == {"kind=good", "kind=bad"}
    assert "2 combinations drawn, not 5" in caplog.text


@pytest.mark.parametrize(
    ("description", "possible"),
    [
        ({"min": 1, "max": 4}, {"1", "2", "3", "4"}),
        ({"min": 2, "max": 9, "q": 3, "distribution": "int_uniform"}, {"2", "5", "8"}),
        (
            {"min": 0.0, "max": 0.3, "q": 0.1, "distribution": "q_uniform"},
            {"0.0", "0.1", "0.2", "0.3"},
        ),
        ({"values": [1, "null", 2.5]}, {"1", "null", "2.5"}),
    ],
)
def test_what_is_drawn_and_what_optuna_chooses_is_what_was_described(
    description: dict[str, Any], possible: set[str]
) -> None:
    parameter = read_parameter(description)
    generator = random.Random(0)
    assert {parameter.draw(generator) for _ in range(200)} == possible
    optuna = pytest.importorskip("optuna")
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(sampler=sampler)
    assert {parameter.suggest(study.ask(), "key") for _ in range(100)} == possible


def test_numbers_on_a_logarithmic_scale_and_weighted_values() -> None:
    """Half of 1 to 10,000 lies below 100 there; a value of weight 0 does not come."""
    description = {"min": 1, "max": 10_000, "distribution": "log_uniform_values"}
    parameter, generator = read_parameter(description), random.Random(0)
    below = sum(float(parameter.draw(generator)) < 100 for _ in range(1000))
    assert abs(below - 500) < 5 * 16  # five standard deviations
    parameter = read_parameter({"values": ["a", "b"], "probabilities": [0, 1]})
    assert {parameter.draw(generator) for _ in range(50)} == {"b"}


class Desk:
    """Runs a Bayesian search without training: a record is a function of the point's texts."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("optuna")
        self.folder = folder
        self.records: dict[Any, dict[str, float]] = {}

    def search(self, count: int, *given: str) -> Bayes:
        return Bayes(space(*given), DROP, count, 0, self.folder, lambda: self.records)

    def work(self, study: Bayes, most: int = 1000) -> list[str]:
        """Run points one by one; the names of those that ran."""
        waiting = [point for point in study.points if point.identity not in self.records]
        ran: list[str] = []
        while len(ran) < most and (waiting or study.ahead):
            waiting = waiting or list(study.more(Progress(0, 0, 1)))
            if waiting:
                point = waiting.pop(0)
                self.records[point.identity] = {"score/drop": drop(point)}
                ran.append(point.name)
        return ran


def drop(point: Point) -> float:
    """Least at x = 0.3 with the good kind."""
    values = dict(text.split("=") for text in point.texts)
    return (float(values["x"]) - 0.3) ** 2 + (values["kind"] == "bad")


def test_bayes_finds_what_chance_does_not(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    study = desk.search(40)
    assert len(desk.work(study)) == 40
    assert study.ahead == 0
    chosen = [drop(point) for point in study.points]
    assert min(chosen) < 1e-3
    late = sum(value < 0.05 for value in chosen[-15:])
    chance = sum(drop(point) < 0.05 for point in drawn(space(), 40, seed=0).points)
    assert late > 15 * chance / 40


def test_bayes_continues_as_if_it_had_not_been_stopped(tmp_path: Path) -> None:
    """After 17 of 20 it starts again; a point that was chosen but has no record comes first."""
    whole = Desk(tmp_path / "whole")
    expected = whole.work(whole.search(20))
    desk = Desk(tmp_path / "parts")
    before = desk.work(desk.search(20), most=17)
    lost = desk.records.popitem()
    again = desk.search(20)
    assert len(again.points) == 17
    assert again.ahead == 3
    after = desk.work(again)
    assert after[0] == "-".join(lost[0])
    assert before[:-1] + after == expected
    assert desk.work(desk.search(20)) == []
    assert desk.search(20, "trainer=gpu").points == []  # another search


def test_bayes_learns_from_the_mean_of_what_a_combination_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seeds each; a combination with a failed point is told as failed."""

    def two(lines: Iterable[Sequence[str]], config_path: str | None = None) -> list[Point]:
        return made([*line, f"seed={seed}"] for line in lines for seed in (0, 1))

    monkeypatch.setattr(bayes, "read_lines", two)
    desk = Desk(tmp_path)
    study = desk.search(3)
    progress = Progress(0, 0, 1)
    first, second = study.more(progress)
    desk.records |= {first.identity: {"score/drop": 1.0}, second.identity: {"score/drop": 4.0}}
    third, fourth = study.more(progress)
    desk.records[third.identity] = {"score/drop": 1.0}
    progress.failed.append((fourth, "because"))
    study.more(progress)
    trials = study._study.trials
    assert trials[0].value == 2.5
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "RUNNING"]


def test_a_metric_that_no_record_has(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    study = desk.search(2)
    (point,) = study.more(Progress(0, 0, 1))
    desk.records[point.identity] = {"score/student": 1.0}
    with pytest.raises(HadError, match="score/drop: not in the records, which have score/student"):
        study.more(Progress(0, 0, 1))


def test_bayes_without_optuna_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(HadError, match=r'pip install "had\[optuna\]"'):
        Bayes(space(), DROP, 1, 0, tmp_path, dict)
