"""The files under sweeps/, as W&B's agent and as `had sweep` read them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import pytest

from had.config.composing import Composer
from had.config.loading import open_hydra
from had.config.validate import validate
from had.errors import HadError
from had.sweeps.files import read_sweep
from had.sweeps.parameters import Choice
from tests.sweeps.agent import RUN_ID, SWEEPS, Server, sweep_file

CONF = Path(__file__).parents[2] / "conf"
RUNS = {  # combinations of each, counted by hand; None: as many as the search is given
    "glue_topn": 4 * 2 * 8 * 5,
    "glue_recipes": 4 * 9 * 5,
    "vision_topn": 2 * 2 * 2 * 6 * 3,
    "longcontext_topn": 3 * 3 * 2 * 5 * 3,
    "schedule_bayes": None,
    "accelerator_pareto": 4 * 2 * 6 * 3,
}


def candidates(parameter: Mapping[str, Any]) -> list[Any]:
    """All values of a parameter, or the ends of its interval."""
    if "value" in parameter:
        return [parameter["value"]]
    return list(parameter.get("values") or (parameter["min"], parameter["max"]))


def through_json(value: Any) -> Any:
    """What an agent gets of a value: the server writes a float without a fraction as an integer."""
    value = json.loads(json.dumps(value))
    return int(value) if isinstance(value, float) and value.is_integer() else value


def one_at_a_time(parameters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every value of every parameter, the others at their first."""
    listed = {key: candidates(each) for key, each in parameters.items()}
    first = {key: values[0] for key, values in listed.items()}
    yield first
    for key, values in listed.items():
        yield from ({**first, key: value} for value in values[1:])


@pytest.fixture(scope="module")
def compose() -> Iterator[Composer]:
    with open_hydra(str(CONF)) as hydra:
        yield Composer(hydra)


def test_every_file_is_counted() -> None:
    assert {file.stem for file in SWEEPS.glob("*.yaml")} == set(RUNS)
    for name, runs in RUNS.items():
        file = read_sweep(SWEEPS / f"{name}.yaml")
        if runs is not None:
            values = [each for each in file.parameters.values() if isinstance(each, Choice)]
            assert len(values) == len(file.parameters)
            assert prod(len(each.values) for each in values) == runs
        assert file.overrides == ()


@pytest.mark.parametrize("name", RUNS)
def test_what_the_agent_writes_is_a_run(
    name: str, compose: Composer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every value of every parameter; what the run then has is what the file says."""
    pytest.importorskip("wandb")
    file = sweep_file(name)
    server = Server(file, monkeypatch, tmp_path)
    for values in one_at_a_time(file["parameters"]):
        words = server.command({key: through_json(value) for key, value in values.items()})
        assert words[:3] == ["/usr/bin/env", "python", "train.py"]
        overrides = compose.parse(words[3:])
        assert not any(override.is_sweep_override() for override in overrides)
        composed = compose(words[3:])
        assert validate(composed.cfg) == []
        assert composed.cfg.run_dir == f"outputs/sweep/{RUN_ID}"
        assert composed.cfg.resume == "auto"
        assert composed.cfg.logger.wandb.mode == "online"
        if "sparsity.n" in values:
            n = composed.cfg.sparsity.n
            assert str(n) == str(values["sparsity.n"])
            assert isinstance(n, float) == ("." in str(values["sparsity.n"]))


def test_shares_sum_to_one_in_every_corner(compose: Composer) -> None:
    parameters = sweep_file("schedule_bayes")["parameters"]
    shares = [f"schedule.stages.{index}.share" for index in (0, 1, 3)]
    for ends in product(*(candidates(parameters[key]) for key in shares)):
        texts = [f"{key}={value}" for key, value in zip(shares, ends, strict=True)]
        cfg = compose(["schedule=shares", *texts]).cfg
        assert sum(stage.share for stage in cfg.schedule.stages) == pytest.approx(1)
        assert cfg.schedule.stages[2].share > 0.09
        assert validate(cfg) == []


GOOD = {"method": "grid", "parameters": {"seed": {"values": [0, 1]}}}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"method": "grit"}, "method=grit: must be one of grid, random, bayes; did you mean grid?"),
        ({"method": "bayes"}, "metric is missing"),
        ({"metric": {"name": "x", "goal": "least"}}, "metric.goal=least: must be one of minimize"),
        ({"run_cap": 0}, "run_cap=0: must be an integer of 1 or more"),
        ({"parameters": {}}, "parameters is missing"),
        ({"parameters": {"seed": 3}}, "parameters.seed: must be a mapping"),
        ({"parameters": {"seed": {"values": []}}}, "must be a list of at least one"),
        ({"parameters": {"seed": {"valeus": [1]}}}, "did you mean values?"),
        ({"parameters": {"seed": {"value": None}}}, 'put it in quotes: "null"'),
        ({"parameters": {"a": {"value": {"b": 1}}}}, "a mapping is no value"),
        ({"parameters": {"a": {"value": "1,2"}}}, "1,2 is several values to Hydra"),
        ({"parameters": {"a": {"min": 0, "max": 1}}}, "a grid needs values"),
        ({"parameters": {"a": {"min": 1, "max": 0}}}, "must be two numbers in order"),
        ({"parameters": {"a": {"min": 0, "max": 1, "distribution": "beta"}}}, "distribution=beta"),
        (
            {"parameters": {"a": {"min": 0, "max": 1.5, "distribution": "int_uniform"}}},
            "int_uniform takes integers alone",
        ),
        (
            {"parameters": {"a": {"min": 0, "max": 1, "distribution": "log_uniform_values"}}},
            "must be greater than 0 on a logarithmic scale",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_put_into_words(
    change: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(json.dumps(GOOD))  # JSON is YAML
    read_sweep(file)
    file.write_text(json.dumps(GOOD | change))
    with pytest.raises(HadError) as refusal:
        read_sweep(file)
    assert sentence in str(refusal.value)
    assert f"{file}: " in str(refusal.value)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(HadError, match="not a readable sweep file"):
        read_sweep(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("[1]")
    with pytest.raises(HadError, match="not a sweep file"):
        read_sweep(tmp_path / "list.yaml")


def test_what_a_command_adds_is_kept_but_for_where_the_run_goes(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    words = ["${program}", "${args_no_hyphens}", "trainer=gpu", "logger=wandb", "resume=auto"]
    file.write_text(json.dumps(GOOD | {"command": [*words, "run_dir=x/${oc.env:WANDB_RUN_ID}"]}))
    assert read_sweep(file).overrides == ("trainer=gpu",)
