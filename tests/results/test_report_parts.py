"""Parts of reports: curves, bit statistics, drawings, pages of hand-made elements."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from had.results.records import record_files
from had.results.report import html, markdown
from had.results.report.curves import read_curves, stage_starts
from had.results.report.elements import Figure, Report, Section, Table, Text
from had.results.report.heads import Bits
from had.results.report.runs import Run, groups_of
from tests.results.material import record

SVG = '<svg xmlns="http://www.w3.org/2000/svg"><g id="a" fill="#1b1f24"/><use href="#a"/></svg>\n'


def log(directory: Path, version: int, rows: list[dict[str, float]]) -> None:
    """A CSV log as Lightning writes it: a column for every name, empty where it was not logged."""
    file = directory / "csv" / f"version_{version}" / "metrics.csv"
    file.parent.mkdir(parents=True)
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, sorted({name for row in rows for name in row}))
        writer.writeheader()
        writer.writerows(rows)


def test_the_later_part_of_an_interrupted_run_counts(tmp_path: Path) -> None:
    first = [{"step": 0, "train/loss": 3.0}, {"step": 10, "train/loss": 2.0}]
    log(tmp_path, 2, [*first, {"step": 20, "train/loss": 9.0}, {"step": 0, "score/student": 1.0}])
    log(tmp_path, 10, [{"step": 20, "train/loss": 1.0}, {"step": 30, "train/loss": 0.5}])
    assert read_curves(tmp_path) == {"train/loss": {0: 3.0, 10: 2.0, 20: 1.0, 30: 0.5}}


def test_a_resumed_stage_begins_where_it_first_began(tmp_path: Path) -> None:
    log(tmp_path, 0, [{"step": 0, "train/stage": 0}, {"step": 8, "train/stage": 1}])
    log(tmp_path, 1, [{"step": 12, "train/stage": 1}, {"step": 20, "train/stage": 2}])
    assert stage_starts(read_curves(tmp_path)) == {0: 0, 1: 8, 2: 20}
    assert stage_starts({}) == {}


def test_bits_that_never_change_say_nothing() -> None:
    bits = Bits([[0.5, 0.5, 0.25, 0.25], [0.0, 1.0, 0.01, 0.99]])
    assert bits.share(0) == 0.375
    assert bits.entropy(0) == pytest.approx((1 + 1 + 2 * 0.811278) / 4, abs=1e-6)
    assert bits.stuck(0) == 0
    assert bits.entropy(1) == pytest.approx(0.040397, abs=1e-5)  # H(0.01) = 0.080793, in 2 of 4
    assert bits.stuck(1) == 4


def test_groups_are_named_by_what_tells_them_apart() -> None:
    records = [record("rte", 1, 70.0, 69.0), record("rte", 0, 70.0, 69.0)]
    runs = [Run(each, None) for each in records]
    (group,) = groups_of(runs)
    assert group.name == "had, N = 30"
    assert [run.record["seed"] for run in group.runs] == [0, 1]
    others = [record("cola", 0, 1.0, 1.0), record("rte", 0, 1.0, 1.0, model="minilm", n=1.0)]
    names = [group.name for group in groups_of([*runs, *(Run(each, None) for each in others)])]
    assert names == [
        *("cola, bert, had, N = 30", "rte, bert, had, N = 30", "rte, minilm, had, N = all")
    ]


def test_a_folder_gives_its_runs_records_and_none_of_their_other_files(tmp_path: Path) -> None:
    for name in ("a/record.json", "a/metrics.json", "a/student/config.json", "b/c/record.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "kept.json").write_text("{}")
    names = ("a/record.json", "b/c/record.json", "kept.json")
    assert record_files(tmp_path) == [tmp_path / name for name in names]


@pytest.fixture
def report() -> Report:
    table = Table(["name", "value"], [["a|b", "1.0"], ["<b>", "-2 ± 1"]], "Two & two.")
    folded = Table(["name"], [["x" * 50]], "Long.", folded="open")
    figures = [Figure(name, SVG, f'alt "{name}"', "Seen.") for name in ("one", "two")]
    section = Section("first", "First", [Text("a < b"), table, folded, *figures])
    return Report("Title", [section, Section("empty", "Empty")], "had report x")


def test_html_is_escaped_and_ids_are_of_their_figure(report: Report) -> None:
    page = html.page(report)
    assert "<p>a &lt; b</p>" in page
    assert "<td>&lt;b&gt;</td>" in page
    assert '<td class="number">-2 ± 1</td>' in page
    assert '<th scope="col" class="number">value</th>' in page
    assert "<details><summary>open</summary>" in page
    assert '<td class="long">xxx' in page
    assert 'id="one-a" fill="currentColor"' in page
    assert 'href="#two-a"' in page
    assert 'aria-label="alt &quot;one&quot;"' in page
    assert "Empty" not in page
    assert "<footer>Made by <code>had report x</code></footer>" in page


def test_markdown_has_the_same_cells(report: Report) -> None:
    page = markdown.page(report)
    assert "| name | value |\n|---|---|\n| a\\|b | 1.0 |\n| <b> | -2 ± 1 |\n\nTwo & two." in page
    assert '![alt "one"](figures/one.svg)' in page
    assert page.endswith("\n\nMade by `had report x`.\n")
