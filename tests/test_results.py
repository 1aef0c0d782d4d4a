"""Records become tables; what is no record is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from had.cli import main
from had.errors import HadError
from had.results.records import group_records, mean_drops, read_records, results_rows


def record(task: str, seed: int, teacher: float, student: float, **other: Any) -> dict[str, Any]:
    identity = {"task": task, "model": "bert", "binarization": "had", "schedule": "paper", "n": 30}
    scores = {"score/teacher": teacher, "score/student": student, "score/drop": teacher - student}
    return {**identity, "seed": seed, "device": "cpu", **scores, **other}


RECORDS = [
    record("rte", 0, 70.0, 69.0),
    record("rte", 1, 72.0, 68.0),
    record("cola", 0, 50.0, 51.0),
]


def test_seeds_are_averaged_with_their_spread_and_the_drop_is_paired() -> None:
    headers, rows = results_rows(RECORDS)
    by_task = {row[0]: dict(zip(headers, row, strict=True)) for row in rows}
    assert by_task["rte"]["seeds"] == "2"
    assert by_task["rte"]["teacher"] == "71.00 ± 1.41"
    assert by_task["rte"]["drop"] == "2.50 ± 2.12"
    assert by_task["cola"]["drop"] == "-1.00"


def test_mean_drop_counts_every_task_once() -> None:
    assert mean_drops(RECORDS) == {("bert", "had", "30"): pytest.approx(0.75)}


def test_another_n_is_another_group() -> None:
    assert len(group_records([*RECORDS, record("rte", 0, 1.0, 1.0, n=8)])) == 3


def write(directory: Path) -> Path:
    for index, each in enumerate(RECORDS):
        run = directory / f"run{index}"
        run.mkdir(parents=True)
        (run / "record.json").write_text(json.dumps(each))
    return directory


def test_the_command_writes_between_the_markers_only(tmp_path: Path) -> None:
    runs = write(tmp_path / "runs")
    page = tmp_path / "PAGE.md"
    page.write_text("before\n<!-- had results: begin -->\nold\n<!-- had results: end -->\nafter\n")
    assert main(["results", str(runs), "--write", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| rte | bert | had | 30 | 2 | 71.00 ± 1.41 |" in text


def test_records_are_collected_under_names_that_tell_them_apart(tmp_path: Path) -> None:
    runs = write(tmp_path / "runs")
    places = [str(path) for path in sorted(runs.iterdir())]
    assert main(["results", *places, "--collect", str(tmp_path / "kept")]) == 0
    assert len(list((tmp_path / "kept").iterdir())) == 3
    assert len(read_records([tmp_path / "kept"])) == 3


def test_what_is_no_record_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(HadError, match=r"x\.json: not a record"):
        read_records([tmp_path])
    with pytest.raises(HadError, match="nowhere"):
        read_records([tmp_path / "nowhere"])


def test_the_readme_shows_the_committed_records(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    page = tmp_path / "README.md"
    page.write_text((root / "README.md").read_text())
    before = page.read_text()
    assert main(["results", str(root / "results" / "glue"), "--write", str(page)]) == 0
    written, shown = (text.split("Made by")[0] for text in (page.read_text(), before))
    assert written == shown
