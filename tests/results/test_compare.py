"""`had compare`: what differs in settings and results, for run directories and records."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from had.cli import main
from tests.results.material import record, write

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def other(tiny_run: Path, tmp_path: Path) -> Path:
    """The tiny run again, as if N and its schedule had been other ones."""
    run = tmp_path / "other"
    run.mkdir()
    shutil.copy(tiny_run / "record.json", run)
    config = yaml.safe_load((tiny_run / "config.yaml").read_text())
    config["sparsity"]["n"] = 3
    config["schedule"]["stages"].pop()
    config["run_dir"] = config["trainer"]["default_root_dir"] = str(run)
    config["logger"]["csv"]["save_dir"] = str(run)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


def compared(capsys: Capture, *arguments: object) -> dict[str, Any]:
    assert main(["compare", *map(str, arguments), "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_only_settings_that_decide_results_and_differ_are_listed(
    tiny_run: Path, other: Path, capsys: Capture
) -> None:
    found = compared(capsys, tiny_run, other)
    settings = {each.pop("key"): each for each in found["settings"]}
    assert settings.pop("sparsity.n") == {"first": 2, "second": 3}
    assert settings.pop("schedule.stages.3.name") == {"first": "polish"}
    assert settings
    assert all(key.startswith("schedule.stages.3.") for key in settings)
    assert found["environment"] == []
    assert found["results"]
    assert {each["difference"] for each in found["results"]} == {0.0}


def test_a_run_does_not_differ_from_itself(tiny_run: Path, capsys: Capture) -> None:
    assert compared(capsys, tiny_run, tiny_run)["settings"] == []


def test_records_alone_are_compared_by_what_they_say(tmp_path: Path, capsys: Capture) -> None:
    first = record("rte", 0, 70.0, 69.0, overrides=["task.epochs=3"], python="3.11.7")
    second = record("rte", 0, 70.0, 66.5, n=8, python="3.12.3", **{"hw/a/area_mm2": 2.0})
    runs = write(tmp_path, [first, second])
    found = compared(capsys, runs / "run0", runs / "run1" / "record.json")
    assert found["settings"] == [
        {"key": "n", "first": 30, "second": 8},
        {"key": "task.epochs", "first": "3"},
    ]
    assert found["environment"] == [{"key": "python", "first": "3.11.7", "second": "3.12.3"}]
    results = {each.pop("key"): each for each in found["results"]}
    assert list(results) == ["score/teacher", "score/student", "score/drop", "hw/a/area_mm2"]
    assert results["score/student"] == {"first": 69.0, "second": 66.5, "difference": -2.5}
    assert results["hw/a/area_mm2"] == {"second": 2.0}


def test_tables_have_both_sides_and_the_difference(tmp_path: Path, capsys: Capture) -> None:
    costs = {"hw/a/area_mm2": 2.0}
    runs = write(tmp_path, [record("rte", s, 70.0, 69.0 - s, **costs) for s in (0, 1)])
    assert main(["compare", f"{runs}/run0", f"{runs}/run1", "--format", "markdown"]) == 0
    text = capsys.readouterr().out
    assert "| setting | A | B |\n|---|---|---|\n| seed | 0 | 1 |" in text
    assert "| score/student | 69 | 68 | -1 |" in text
    assert "hw/" not in text  # equal costs are left out
    assert "environment" not in text
    assert main(["compare", f"{runs}/run0", f"{runs}/run1"]) == 0
    assert "score/student" in capsys.readouterr().out


def test_a_folder_of_several_runs_is_refused(tmp_path: Path, capsys: Capture) -> None:
    runs = write(tmp_path)
    assert main(["compare", str(runs), str(runs / "run0")]) == 2
    assert "4 records there; give one run directory or record" in capsys.readouterr().err
