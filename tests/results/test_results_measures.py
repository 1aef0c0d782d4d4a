"""Perplexities: ratios in place of drops, in tables of their own; and texts by length and depth."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from had.cli import main
from had.errors import HadError
from had.results.curves import gaps_against
from had.results.depths import depth_rows
from had.results.plots import plot_gap
from had.results.shown import tables
from had.results.statistics import rows_of
from had.results.views import keys, long_rows, wide_rows
from tests.results.material import RECORDS, record, write


def novels(seed: int, teacher: float, student: float, **other: Any) -> dict[str, Any]:
    """A record as language models leave it: the drop is the ratio in percent above 1."""
    ratio = student / teacher
    scores = {"score/ratio": ratio, "score/drop": 100 * (ratio - 1), "metric": "perplexity"}
    return record("lm/novels", seed, teacher, student, **{"n": 0.25, **scores, **other})


PERPLEXITIES = [novels(0, 20.0, 21.0), novels(1, 25.0, 26.0)]
"""Ratios 1.05 and 1.04: mean 1.045, standard deviation 0.01 / sqrt(2), standard error 0.005."""


def cells(rows: tuple[list[str], list[list[str]]]) -> list[dict[str, str]]:
    headers, body = rows
    return [dict(zip(headers, row, strict=True)) for row in body]


def test_a_perplexity_is_compared_by_its_ratio() -> None:
    (novel,) = cells(long_rows(PERPLEXITIES))
    assert (novel["teacher"], novel["student"]) == ("22.500 ± 3.536", "23.500 ± 3.536")
    assert (novel["ratio"], novel["N"]) == ("1.045 ± 0.007", "25 %")
    other = novels(0, 4.0, 6.02) | {"task": "lm/text"}
    teacher, student = cells(wide_rows([*PERPLEXITIES, other]))
    assert teacher["lm/novels"] == "22.500 ± 3.536"
    assert student["lm/text"] == "6.020 (1.505)"
    assert student["mean ratio"] == "1.275"  # (1.045 + 1.505) / 2
    assert student["worst task"] == "lm/text 1.505"


def test_points_and_ratios_share_no_table_and_no_row() -> None:
    points, ratios = tables("recipe", [*PERPLEXITIES, *RECORDS])
    assert "mean drop" in points.rows[0]
    assert "mean ratio" in ratios.rows[0]
    assert "points of 100" in points.caption
    assert "perplexity (lower is better)" in ratios.caption
    assert "ratio to the teacher" in ratios.caption
    rows = rows_of([*RECORDS, *(each | {"n": 30} for each in PERPLEXITIES)])
    assert [list(row.cells) for row in rows] == [["cola", "rte"], ["lm/novels"]]
    assert [row.gap for row in rows] == pytest.approx([1.25, 1.045])


def test_a_score_other_than_perplexity_is_named() -> None:
    """What a record says counts; older ones with a ratio held perplexities."""
    bits = novels(0, 2.0, 2.1, metric="bits_per_byte")
    old = {key: value for key, value in PERPLEXITIES[0].items() if key != "metric"}
    (table,) = tables("task", [bits, old | {"seed": 1}])
    assert "Scores in bits_per_byte, perplexity (lower is better)" in table.caption


def test_contexts_are_in_the_order_of_their_size() -> None:
    records = [novels(0, 2.0, 3.0, overrides=[f"task.context={c}"]) for c in (1024, 512, 8192)]
    named = [row["recipe"] for row in cells(long_rows(records))]
    assert named == [f"had (task.context={c})" for c in (512, 1024, 8192)]


def test_a_default_is_named_beside_what_differs_from_it() -> None:
    """But not on other tasks, nor where all have it; and it splits no row of theirs."""
    default = novels(0, 2.0, 3.0, **{"task.context": 1024})
    other = novels(0, 2.0, 3.0, overrides=["task.context=512"], **{"task.context": 512})
    elsewhere = novels(0, 2.0, 3.0, **{"task.context": 64}) | {"task": "lm/text"}
    rows = cells(long_rows([default, other, elsewhere]))
    assert [(row["task"], row["recipe"]) for row in rows] == [
        ("lm/novels", "had (task.context=512)"),
        ("lm/novels", "had (task.context=1024)"),
        ("lm/text", "had"),
    ]
    assert [row["recipe"] for row in cells(long_rows([default, elsewhere]))] == ["had", "had"]
    assert len(rows_of([default, elsewhere])) == 1


def test_shares_are_short() -> None:
    assert [keys(n) for n in (30, 1.0, 0.25, 0.125, 1 / 16, 1 / 64, 0.3333)] == [
        *("30", "all", "25 %", "12.5 %", "1/16", "1/64", "33.33 %")
    ]


def test_guessing_is_said_where_it_was_recorded() -> None:
    (table,) = tables("task", [record("quality", 0, 40.0, 39.0, **{"student/chance": 0.25})])
    assert "Guessing gives 25 on quality." in table.caption
    assert "Guessing" not in tables("task", RECORDS)[0].caption


def test_a_page_has_a_table_for_each_measure_and_the_command_once(tmp_path: Path) -> None:
    page = tmp_path / "PAGE.md"
    page.write_text("<!-- had results: begin -->\n<!-- had results: end -->\n")
    runs = write(tmp_path / "runs", [*RECORDS, *PERPLEXITIES])
    assert main(["results", str(runs), "--write", str(page)]) == 0
    text = page.read_text()
    assert text.count("| drop |") == text.count("| ratio |") == 1
    assert text.count("Made by `had results") == 1


def placed(seed: int, **parts: tuple[float, float]) -> dict[str, Any]:
    """A record of retrieval with shares of right answers, (teacher, student) a part."""
    found = {
        f"{role}/{part}/accuracy": share
        for part, shares in parts.items()
        for role, share in zip(("teacher", "student"), shares, strict=True)
    }
    return record("passkey", seed, 100.0, 99.0, **found)


def test_retrieval_by_length_and_depth() -> None:
    first = placed(
        0, length256_depth0=(1.0, 0.98), length1024_depth0=(1.0, 1.0), length256_depth50=(1.0, 0.9)
    )
    second = placed(
        1, length256_depth0=(0.98, 0.98), length1024_depth0=(1.0, 1.0), length256_depth50=(1.0, 0.8)
    )
    short, long = cells(depth_rows([first, second, *RECORDS]))
    assert (short["tokens"], long["tokens"], short["seeds"]) == ("256", "1024", "2")
    assert short["depth 0 %"] == "98.00 (1.00 ± 1.41)"
    assert short["depth 50 %"] == "85.00 (15.00 ± 7.07)"
    assert (long["depth 0 %"], long["depth 50 %"]) == ("100.00 (0.00 ± 0.00)", "")
    (table,) = tables("depth", [first, second, *RECORDS, *PERPLEXITIES])
    assert len(table.rows[1]) == 2
    with pytest.raises(HadError, match="--by depth: no record"):
        tables("depth", RECORDS)


def test_curves_against_n_are_counts_or_shares() -> None:
    shares = [novels(s, 20.0, 20.0 + 1 / n, n=n) for s in (0, 1) for n in (0.0625, 0.25)]
    assert gaps_against(shares, "n") == {"had": [(6.25, 1.8, 0.0), (25.0, 1.2, 0.0)]}
    both = gaps_against([*shares, novels(0, 20.0, 22.0, n=64)], "n")
    assert both == {"had": [(64, pytest.approx(1.1), 0.0)]}


def test_a_point_of_a_curve_is_a_mean_over_the_same_tasks_as_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs = [("rte", 8, 59.0), ("rte", 30, 60.0), ("cola", 30, 58.0), ("rte", 64, 60.0)]
    records = [record(task, 0, 60.0, student, n=n) for task, n, student in runs]
    assert gaps_against(records, "n") == {"had": [(30, 1.0, 0.0)]}
    assert "had at 8 lacks cola, left out" in caplog.text
    nothing_shared = [record("rte", 0, 60.0, 59.0, n=8), record("cola", 0, 60.0, 58.0, n=30)]
    assert len(gaps_against(nothing_shared, "n")["had"]) == 1


def test_curves_against_a_setting_have_its_value_on_the_axis_not_in_their_names() -> None:
    """The default of a setting is in the record alone, other values are overrides as well."""
    records = [
        novels(
            *(0, 20.0, 20.0 * ratio),
            n=n,
            **{"task.context": context},
            overrides=[f"task.context={context}"] * (context != 512),
        )
        for n, context, ratio in [(16, 512, 1.5), (16, 1024, 2.0), (64, 512, 1.25), (64, 1024, 1.5)]
    ]
    assert gaps_against(records, "task.context") == {
        "had, N = 16": [(512, 1.5, 0.0), (1024, 2.0, 0.0)],
        "had, N = 64": [(512, 1.25, 0.0), (1024, 1.5, 0.0)],
    }
    assert gaps_against(records, "seed") == {}


def test_a_plot_has_a_panel_for_each_measure(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot_gap([*RECORDS, *PERPLEXITIES], tmp_path / "both.svg")
    labels = set(re.findall(r"<!-- (.+?) -->", (tmp_path / "both.svg").read_text()))
    assert {"drop below the teacher, points of 100", "perplexity over the teacher's"} <= labels
    assert {"N, keys that a query keeps", "N, % of the keys that a query keeps"} <= labels
