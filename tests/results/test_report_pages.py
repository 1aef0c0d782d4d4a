"""`had report`: whole pages, from a real run and from records alone."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from had.cli import main
from tests.results.browser import chromium
from tests.results.material import record, write

pytest.importorskip("matplotlib")

SECTIONS = ["summary", "scores", "learning", "agreement", "energy", "heads", "settings"]
OVERLAPS = """
const hits = [];
for (const svg of document.querySelectorAll("svg")) {
  const texts = [...svg.querySelectorAll("text")].map(
    t => [t.textContent, t.getBoundingClientRect()]);
  texts.forEach(([a, p], i) => texts.slice(i + 1).forEach(([b, q]) => {
    const wide = Math.min(p.right, q.right) - Math.max(p.left, q.left);
    const high = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
    if (wide > 1 && high > 2) hits.push(`${svg.getAttribute("aria-label")}: ${a} / ${b}`);
  }));
}
return hits;
"""
CUT_OFF = """
return [...document.querySelectorAll("svg text")].filter(t => {
  const inner = t.getBoundingClientRect(), outer = t.closest("svg").getBoundingClientRect();
  return inner.left < outer.left - 1 || inner.right > outer.right + 1;
}).map(t => t.textContent);
"""


def priced(seed: int, n: int, student: float, energy: float) -> dict[str, Any]:
    """A record with costs on one accelerator and on the baseline."""
    hardware = {
        "hw/standard/onchip_energy_per_query_nj": 50.0,
        "hw/standard/energy_ratio": 1.0,
        "hw/camformer/onchip_energy_per_query_nj": energy,
        "hw/camformer/energy_ratio": energy / 50,
    }
    layers = {"attention/0/kl_nats": 0.1 * (seed + 1), "attention/1/kl_nats": 0.5}
    return record("rte", seed, 70.0, student, n=n, **hardware, **layers)


RECORDS = [
    *(priced(0, 8, 68.0, 2.0), priced(1, 8, 66.0, 2.0)),
    *(priced(0, 16, 65.0, 4.0), priced(1, 16, 65.0, 4.0)),
]
"""Drops: 3 +- 1.41 at N = 8, and 5 at N = 16, which costs more and is worth less."""


@pytest.fixture(scope="module")
def report(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on a real run and on records alone."""
    directory = tmp_path_factory.mktemp("pages")
    runs = write(directory / "runs", RECORDS)
    assert main(["report", str(tiny_run), str(runs), "--out", str(directory / "out")]) == 0
    return directory / "out"


@pytest.fixture(scope="module")
def page(report: Path) -> str:
    return (report / "report.html").read_text()


def rows(page: str, section: str) -> list[list[str]]:
    """The cells of a section's tables."""
    inside = page.partition(f'<section id="{section}"')[2].partition("</section>")[0]
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>.*?</tr>", inside)]


def test_a_page_has_all_sections_and_the_command(page: str, report: Path) -> None:
    assert re.findall(r'<section id="(\w+)"', page) == SECTIONS
    assert re.findall(r'<li><a href="#(\w+)"', page) == SECTIONS
    assert f"--out {report}</code>" in page


def test_a_page_is_sound_and_needs_nothing_else(page: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    referred = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', page)
    assert referred
    assert {name for pair in referred for name in pair if name} <= set(ids)
    assert not re.search(r'(src|href)="(?!#|data:)', page)
    assert "<script" not in page
    drawings = re.findall(r"<svg .*?</svg>", page, re.DOTALL)
    assert len(drawings) >= 7
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert root.get("role") == "img"
        assert root.get("aria-label")


def test_scores_agreement_and_costs_are_those_of_the_records(page: str) -> None:
    scores = rows(page, "scores")
    assert ["rte", "bert", "had", "8", "2", "70.00 ± 0.00", "67.00 ± 1.41", "3.00 ± 1.41"] in scores
    assert ["16", "2", "70.00 ± 0.00", "65.00 ± 0.00", "5.00 ± 0.00"] in [row[3:] for row in scores]
    layers = {row[0]: row[1:] for row in rows(page, "agreement") if row}
    assert layers["rte, bert, had, N = 8"] == ["0.150 ± 0.071", "0.500 ± 0.000"]
    energy = [row for row in rows(page, "energy") if row]
    assert energy[:3] == [
        ["had, N = 8", "camformer", "2", "0.04", "3.00 ± 1.00", "yes"],
        ["had, N = 16", "camformer", "4", "0.08", "5.00 ± 0.00", ""],
        ["teacher", "standard", "50", "1", "0.00", "yes"],
    ]


def test_perplexities_have_tables_and_figures_of_their_own(tmp_path: Path) -> None:
    """Ratios 1.1 at N = 8 and 1.05 at N = 16, beside the points above."""
    costs = {"hw/had_cam/onchip_energy_per_query_nj": 3.0, "hw/had_cam/energy_ratio": 0.06}
    novels = [
        record("novels", 0, 20.0, 20.0 * ratio, n=n, **{"score/ratio": ratio}, **costs)
        for n, ratio in ((8, 1.1), (16, 1.05))
    ]
    runs = write(tmp_path / "runs", [*RECORDS, *novels])
    assert main(["report", str(runs), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    row = ["novels", "bert", "had", "16", "1", "20.000", "21.000", "1.050"]
    assert row in rows(page, "scores")
    assert ["had, N = 16", "had_cam", "3", "0.06", "1.050", "yes"] in rows(page, "energy")
    assert "The smallest mean drop, 3.00 ± 1.00, has had, N = 8." in page
    assert "The smallest mean ratio, 1.050, has had, N = 16." in page
    names = {figure.stem for figure in (tmp_path / "out" / "figures").iterdir()}
    assert {"drops", "ratios", "drop-against-n", "ratio-against-n"} <= names


def test_curves_have_the_stages_of_the_run(page: str) -> None:
    inside = page.partition('<section id="learning"')[2].partition("</section>")[0]
    for text in ("soft", "sharp", "sign", "polish", "optimizer step", "training loss", "accuracy"):
        assert f">{text}</text>" in inside
    assert "4 of 5 runs have no curves here: they are records alone" in inside


def test_what_needs_a_run_directory_is_said_to_be_missing(tmp_path: Path) -> None:
    runs = write(tmp_path / "runs", [record("rte", 0, 70.0, 69.0)])
    assert main(["report", str(runs), "--out", str(tmp_path / "out")]) == 0
    for name in ("report.html", "report.md"):
        page = (tmp_path / "out" / name).read_text()
        assert "1 of 1 runs have no curves here" in page
        assert "1 of 1 records are older than this figure" in page
        assert "No record holds a cost" in page
        assert "not at hand: had, N = 30" in page
        assert "1 of 1 runs are records alone: their settings are not known" in page


def test_markdown_has_its_figures_beside_it(report: Path) -> None:
    text = (report / "report.md").read_text()
    named = re.findall(r"!\[.+?\]\((figures/.+?\.svg)\)", text)
    assert sorted(named) == sorted(f"figures/{f.name}" for f in (report / "figures").iterdir())
    for name in named:
        assert ElementTree.parse(report / name).getroot().tag.endswith("svg")
    assert text.count("\n## ") == len(SECTIONS)


def test_the_same_records_give_the_same_files(tmp_path: Path, tiny_run: Path) -> None:
    command = ["report", str(tiny_run), "--out", str(tmp_path / "out")]
    seen = []
    for _ in range(2):
        assert main(command) == 0
        files = sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
        seen.append({path: path.read_bytes() for path in files})
    assert seen[0] == seen[1]


def test_a_missing_student_costs_its_section_only(
    tmp_path: Path, tiny_run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alone = tmp_path / "run"
    alone.mkdir()
    for name in ("record.json", "config.yaml"):
        (alone / name).write_bytes((tiny_run / name).read_bytes())
    assert main(["report", str(alone), "--out", str(tmp_path / "out")]) == 0
    assert "its student is left out" in caplog.text
    page = (tmp_path / "out" / "report.html").read_text()
    assert "not at hand: had, N = 2" in page
    assert ["binarization.name", "had"] in rows(page, "settings")


def test_places_without_records_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "no records there" in capsys.readouterr().err
    file = tmp_path / "record.json"
    file.write_text(json.dumps({"task": "rte"}))
    assert main(["report", str(file), "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_a_browser_shows_the_page_without_network_errors_or_overlaps(
    report: Path, tmp_path: Path
) -> None:
    file = report / "report.html"
    with chromium(tmp_path / "profile") as browser:
        for width in (1280, 400):
            browser.open(file, width)
            assert browser.complaints() == []
            assert browser.requests() == [file.as_uri()]
            size = browser.run("return document.documentElement.scrollWidth")
            assert size <= width
            assert browser.run(OVERLAPS) == []
            assert browser.run(CUT_OFF) == []
        browser.open(file, 1280, dark=True)
        colors = browser.run(
            "const c = e => getComputedStyle(e);"
            "return [c(document.body).backgroundColor, c(document.querySelector('text')).fill]"
        )
        assert colors == ["rgb(20, 23, 27)", "rgb(230, 232, 235)"]  # ink follows the page
