"""What tells records apart, what makes a row of them, and the statistics of that row."""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import pytest

from had.errors import HadError
from had.results.published import published, published_rows
from had.results.records import identity_of, read_records, record_name, where
from had.results.statistics import rows_of, teachers
from had.results.views import long_rows, together, wide_rows
from tests.results.material import RECORDS, record


def test_the_statistics_of_a_row() -> None:
    """RTE drops 1 and 4: mean 2.5, deviation 3/sqrt(2), error 1.5; CoLA -1 and 1: 0, sqrt(2), 1."""
    (row,) = rows_of(RECORDS)
    rte, cola = row.cells["rte"].gap, row.cells["cola"].gap
    assert (rte.mean, rte.deviation, rte.error) == pytest.approx((2.5, 3 / sqrt(2), 1.5))
    assert (cola.mean, cola.deviation, cola.error) == pytest.approx((0, sqrt(2), 1))
    assert row.gap == 1.25
    assert row.error == pytest.approx(sqrt(1.5**2 + 1**2) / 2)
    assert row.worst == ("rte", 2.5)
    assert row.seeds == "2"


def test_the_drop_is_paired() -> None:
    """Teachers that vary by 20 points between seeds do not blur a drop that is always 1."""
    (row,) = rows_of([record("rte", 0, 60.0, 59.0), record("rte", 1, 80.0, 79.0)])
    assert row.cells["rte"].teacher.deviation == pytest.approx(20 / sqrt(2))
    assert row.cells["rte"].gap.deviation == 0


def test_every_task_counts_once_and_one_seed_tells_no_spread() -> None:
    (row,) = rows_of(RECORDS[:3])
    assert row.gap == 0.75
    assert row.cells["cola"].gap.deviation is None
    assert row.error is None
    assert row.seeds == "1-2"


def test_a_teacher_counts_once_however_many_students_it_has() -> None:
    more = [record("rte", seed, 70.0 + 2 * seed, 60.0, n=8) for seed in (0, 1)]
    assert teachers(rows_of([*RECORDS, *more]))["bert", "rte"].scores == [70.0, 72.0]
    assert wide_rows([*RECORDS, *more])[1][0][5] == "71.00 ± 1.41"


def test_a_teacher_trained_again_is_still_one_of_its_seed() -> None:
    """Seed 0 has 70 and, on another machine, 74, so 72 as seed 1; settings alike."""
    again = record("rte", 0, 74.0, 60.0, binarization="had_plus")
    headers, rows = wide_rows([*RECORDS, again])
    assert rows[0][headers.index("rte")] == "72.00 ± 0.00"


def test_teachers_of_different_contexts_are_not_averaged() -> None:
    contexts = [("task.context=512", 70.0), ("task.context=1024", 74.0)]
    records = [record("rte", s, t, 60.0, overrides=[c]) for s in (0, 1) for c, t in contexts]
    headers, rows = wide_rows(records)
    assert rows[0][headers.index("rte")] == "70.00 to 74.00"


@pytest.mark.parametrize(
    "other", [{"n": 8}, {"schedule": "fast"}, {"overrides": ["task.epochs=3"]}, {"model": "vit"}]
)
def test_what_makes_another_row(other: dict[str, object]) -> None:
    assert len(rows_of([*RECORDS, record("rte", 0, 1.0, 1.0, **other)])) == 2


def test_identity_is_axes_seed_and_overrides_in_any_order() -> None:
    """Records from before there were overrides count as having none."""
    old, new = record("rte", 0, 1.0, 1.0), record("rte", 0, 2.0, 2.0, overrides=[])
    assert identity_of(old) == identity_of(new)
    assert record_name(old) == record_name(new) == "rte-bert-had-paper-30-seed0.json"
    ab, ba = (record("rte", 0, 1.0, 1.0, overrides=list(each)) for each in ("ab", "ba"))
    assert identity_of(ab) == identity_of(ba) != identity_of(old)
    assert record_name(ab) == record_name(ba) != record_name(old)
    assert identity_of(record("rte", 1, 1.0, 1.0)) != identity_of(old)


def test_the_long_view() -> None:
    headers, rows = long_rows(RECORDS)
    cola, rte = (dict(zip(headers, row, strict=True)) for row in rows)
    assert (cola["task"], rte["task"]) == ("cola", "rte")
    assert (rte["teacher"], rte["drop"]) == ("71.00 ± 1.41", "2.50 ± 2.12")
    assert cola["student"] == "51.00 ± 0.00"


def test_the_long_view_shows_agreement_in_percent_where_all_records_have_it() -> None:
    agreeing = [each | {"student/agreement": 0.9} for each in RECORDS]
    agreeing[0] |= {"student/agreement": 0.8}
    headers, rows = long_rows(agreeing)
    assert headers[-1] == "agreement"
    assert {row[-1] for row in rows} == {"90.00 ± 0.00", "85.00 ± 7.07"}
    headers, rows = long_rows([*agreeing[:-1], RECORDS[-1]])
    assert headers[-1] == "drop"
    assert {len(row) for row in rows} == {len(headers)}


def test_the_wide_view() -> None:
    half = record("rte", 0, 70.0, 60.0, binarization="ste", n=1.0)
    headers, rows = wide_rows([*RECORDS, half])
    teacher, had, ste = (dict(zip(headers, row, strict=True)) for row in rows)
    assert (teacher["recipe"], teacher["rte"]) == ("teacher", "71.00 ± 1.41")
    assert had["rte"] == "68.50 (2.50 ± 2.12)"
    assert (had["mean drop"], had["worst task"]) == ("1.25 ± 0.90", "rte 2.50")
    assert (ste["N"], ste["cola"], ste["mean drop"]) == ("all", "", "10.00 (1 of 2 tasks)")


def test_settings_are_named_where_they_tell_rows_apart() -> None:
    """What all rows share does not."""
    a, b = ["task.epochs=3", "backend=eager"], ["backend=eager"]
    records = [record("rte", 0, 1.0, 1.0, overrides=each) for each in (a, b)]
    assert {row[2] for row in long_rows(records)[1]} == {"had", "had (task.epochs=3)"}
    fast = record("rte", 0, 1.0, 1.0, schedule="fast")
    names = {row[2] for row in long_rows([RECORDS[0], fast])[1]}
    assert names == {"had (schedule=paper)", "had (schedule=fast)"}


def test_a_setting_of_several_stages_is_named_once() -> None:
    """A number that is no item of a list, or another value, stays by itself."""
    given = ["a.0.b=1", "a.1.b=1", "a.1.b=2", "c=0.5", "d.e=0.1"]
    assert together(given) == ["a.{0,1}.b=1", "a.1.b=2", "c=0.5", "d.e=0.1"]


def test_filters() -> None:
    records = [record("rte", seed, 1.0, 1.0, n=n) for seed in (0, 1) for n in (8, 30)]
    assert len(where(records, ["n=8,30", "seed=1"])) == 2
    assert where(records, ["n=8", "task=cola"]) == []
    settings = [{"task.context": 512}, {"overrides": ["task.context=1024"]}, {}]
    contexts = [record("lm", 0, 1.0, 1.0, **each) for each in settings]
    assert where(contexts, ["task.context=512,1024"]) == contexts[:2]
    for wrong in ("binarisation=had", "n", "task.context=8"):
        with pytest.raises(HadError, match=wrong):
            where(records, [wrong])


def test_what_is_no_record_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(HadError, match=r"x\.json: not a record"):
        read_records([tmp_path])
    with pytest.raises(HadError, match="nowhere"):
        read_records([tmp_path / "nowhere"])


def test_published_averages_are_those_of_their_tasks() -> None:
    """The source averages over eight tasks in some rows and counts both halves of MNLI in others.

    A digit mistyped in a task's score would move the average by more than rounding does.
    """
    checked = 0
    for row in published():
        assert row.source
        if row.tasks:
            nine = list(row.tasks.values())
            eight = [score for task, score in row.tasks.items() if task != "mnli_mm"]
            off = min(abs(sum(all_) / len(all_) - row.average) for all_ in (nine, eight))
            assert off < 0.1, row.method
            checked += 1
    assert checked == 5


def test_published_losses_are_against_their_own_teacher() -> None:
    """1.78 is in the paper's abstract; its 9.08 for BiT is against its own, other teacher."""
    headers, rows = published_rows(["sst2", "digits"])
    by_method = {row[0]: dict(zip(headers, row, strict=True)) for row in rows}
    assert "digits" not in headers
    assert by_method["HAD, N = 30"]["loss"] == "1.78"
    assert by_method["BiT"]["sst2"] == "89.9"
    (had_teacher,) = (row for row in published() if row.method == "teacher of the HAD paper")
    assert had_teacher.average - float(by_method["BiT"]["average"]) == pytest.approx(9.09, abs=0.02)
