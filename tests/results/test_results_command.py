"""`had results`: blocks of a page, formats, curves; the README shows what is committed."""

from __future__ import annotations

import csv
import io
import re
import shlex
import shutil
from pathlib import Path

import pytest

from had.cli import main
from had.errors import HadError
from had.results.page import write_into
from had.results.plots import plot_gap
from had.results.records import read_records
from tests.results.material import RECORDS, record, write

ROOT = Path(__file__).parents[2]
PAGE = """before
<!-- had results: begin -->
old
<!-- had results: end -->
between
<!-- had results: begin other -->
old other
<!-- had results: end -->
after
"""


def test_a_block_is_written_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "PAGE.md"
    page.write_text(PAGE)
    runs = write(tmp_path / "runs")
    assert main(["results", str(runs), "--write", str(page), "--block", "other"]) == 0
    text = page.read_text()
    kept, begin, block = text.partition("<!-- had results: begin other -->\n")
    assert begin
    assert kept == PAGE[: len(kept)]
    assert block.endswith("<!-- had results: end -->\nafter\n")
    assert "old other" not in text
    assert "| rte | bert | had | 30 | 2 | 71.00 ± 1.41 |" in block
    assert f"Made by `had results {runs} --write {page} --block other`" in block
    assert main(["results", str(runs), "--write", str(page)]) == 0
    assert "\nold\n" not in page.read_text()
    assert block in page.read_text()


def test_a_page_without_the_block_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "PAGE.md"
    page.write_text(PAGE)
    with pytest.raises(HadError, match=r"begin othr -->.*did you mean other"):
        write_into(page, "text", "othr")
    with pytest.raises(HadError, match="cannot be read"):
        write_into(tmp_path / "none.md", "text")
    assert page.read_text() == PAGE


def test_csv_holds_what_markdown_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = str(write(tmp_path))
    assert main(["results", runs, "--format", "csv"]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert main(["results", runs, "--format", "markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    del lines[1]
    assert [line.strip("| ").split(" | ") for line in lines] == rows
    assert len(rows) == 3


def test_filters_that_leave_nothing_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["results", str(write(tmp_path)), "--where", "n=9"]) == 2
    assert "no records there that pass --where" in capsys.readouterr().err


def test_records_are_collected_under_names_that_tell_them_apart(tmp_path: Path) -> None:
    places = [str(path) for path in sorted(write(tmp_path / "runs").iterdir())]
    assert main(["results", *places, "--collect", str(tmp_path / "kept")]) == 0
    assert len(list((tmp_path / "kept").iterdir())) == len(RECORDS)
    assert len(read_records([tmp_path / "kept"])) == len(RECORDS)


def test_a_curve_has_a_tick_at_every_n_and_is_the_same_file_every_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    records = [record("rte", s, 70.0, 10.0 + n / 2 + s, n=n) for s in (0, 1) for n in (4, 12)]
    files = [tmp_path / "one.svg", tmp_path / "two.svg"]
    for file in files:
        plot_gap([*records, record("rte", 0, 1.0, 1.0, n=1.0)], file)
    one, two = (file.read_text() for file in files)
    assert one == two
    labels = set(re.findall(r"<!-- (.+?) -->", one))
    assert {"4", "12", "had", "N, keys that a query keeps"} <= labels
    assert "drop below the teacher, points of 100" in labels
    assert "1" not in labels  # all keys: a share is no place on this axis


def test_curves_that_cannot_be_drawn_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HadError, match="no record has such a number"):
        plot_gap(RECORDS, tmp_path / "x.svg", "hw/none/energy")
    with pytest.raises(HadError, match=r"not as x\.gif"):
        plot_gap(RECORDS, tmp_path / "x.gif")


def test_the_readme_shows_what_its_commands_make_of_the_committed_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (ROOT / "README.md").read_text()
    commands = re.findall(r"Made by `(had results [^`]+)`", before)
    assert len(commands) == before.count("<!-- had results: begin")
    shutil.copytree(ROOT / "results", tmp_path / "results")
    page = tmp_path / "README.md"
    page.write_text(re.sub(r"(?s)(had results: begin \w+ -->\n).*?(<!--)", r"\1\2", before))
    assert page.read_text() != before
    monkeypatch.chdir(tmp_path)
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0
    assert page.read_text() == before
