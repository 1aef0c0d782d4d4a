"""The functions behind `had cost`, the flat metrics, reports and plots."""

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from had.errors import HadError
from had.hardware import (
    AttentionWorkload,
    CostCase,
    LayerWorkload,
    ModelGeometry,
    compare,
    cost_metrics,
    evaluate,
    parse_sweep,
    sweep,
)
from had.hardware.plots import pareto_front, plot_breakdown, plot_pareto, plot_sweep
from had.hardware.report import as_dict, breakdown_table, comparison_table, sweep_table

BERT = ModelGeometry(layers=12, heads=12, head_dim=64, name="BERT-base")
NAMES = ["standard", "had_digital", "had_cam", "camformer"]
LAYER = {
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 8,
    "value_dim": 8,
    "query_length": 5.5,
    "key_length": 7.25,
    "n": 3,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 0}, "heads of a layer must be positive, found 0"),
        ({"key_length": -1}, "key_length of a layer must be positive"),
        ({"n": 0}, "n of a layer must be positive"),
        ({"bits_value": 0}, "bits_value of a layer must be positive"),
        ({"query_length": math.nan}, "query_length of a layer must be positive"),
        ({"kv_heads": 3}, "heads 4 must be a multiple of kv_heads 3"),
    ],
)
def test_workloads_refuse_what_cannot_be(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayerWorkload(**(LAYER | changes))


def test_a_workload_needs_a_layer() -> None:
    with pytest.raises(HadError, match="at least one layer"):
        AttentionWorkload(())


def test_n_larger_than_the_context_is_dense() -> None:
    layer = LayerWorkload(**(LAYER | {"n": 100}))
    assert layer.kept == 7.25


def test_geometry_gives_one_layer_workload_a_layer() -> None:
    workload = BERT.workload(128, 0.1)
    assert len(workload.layers) == 12
    assert workload.layers[0].n == 13  # a tenth of 128, rounded up
    assert workload.layers[0].query_length == 128
    assert workload.queries == 12 * 128
    assert BERT.workload(128, 30, query_length=1).queries == 12
    assert BERT.workload(128, 1).layers[0].n == 1


@pytest.mark.parametrize(("context", "kept"), [(20, 20), (128, 32), (512, 32), (513, 33)])
def test_a_share_keeps_its_minimum(context: int, kept: int) -> None:
    (layer, *_) = BERT.workload(context, 0.0625, minimum=32).layers
    assert layer.kept == kept  # 1/16 of the keys, rounded up, and 32 of them if there are as many


@pytest.mark.parametrize("n", [0, -3, 0.0])
def test_geometry_refuses_to_keep_nothing(n: float) -> None:
    with pytest.raises(HadError, match="n must be positive"):
        BERT.workload(128, n)


def test_metrics_are_flat_and_named_by_quantity_and_unit() -> None:
    metrics = cost_metrics(BERT.workload(128, 30), NAMES)
    for name in NAMES:
        for quantity in (
            "energy_per_query_nj",
            "energy_per_sample_uj",
            "area_mm2",
            "power_w",
            "latency_us",
            "queries_per_ms",
            "queries_per_mj",
            "energy_ratio",
            "area_ratio",
        ):
            assert metrics[f"hw/{name}/{quantity}"] > 0
    assert metrics["hw/standard/energy_ratio"] == 1
    assert metrics["hw/had_digital/energy_ratio"] < 1
    json.dumps(metrics)


def test_ratios_do_not_need_the_baseline_in_the_list() -> None:
    metrics = cost_metrics(BERT.workload(128, 30), ["had_digital"], baseline="standard")
    full = cost_metrics(BERT.workload(128, 30), NAMES)
    assert metrics["hw/had_digital/energy_ratio"] == full["hw/had_digital/energy_ratio"]
    assert not any(key.startswith("hw/standard/") for key in metrics)


def test_published_rows_give_no_area() -> None:
    metrics = cost_metrics(BERT.workload(128, 30), ["a3"])
    assert "hw/a3/area_mm2" not in metrics
    assert "hw/a3/area_ratio" not in metrics
    assert metrics["hw/a3/energy_ratio"] > 0


def test_sample_and_query_energies_agree() -> None:
    report = evaluate(BERT.workload(128, 30), "standard")
    quantities = report.quantities()
    per_sample = quantities["energy_per_query_nj"] * 12 * 128 / 1e3
    assert quantities["energy_per_sample_uj"] == pytest.approx(per_sample)


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(HadError, match="at least one accelerator"):
        compare(BERT.workload(128, 30), [])


@pytest.mark.parametrize(
    ("text", "parameter", "values"),
    [
        ("n=128..65536", "n", (128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)),
        ("topn=8..512", "topn", (8, 16, 32, 64, 128, 256, 512)),
        ("topn=8,16,30", "topn", (8, 16, 30)),
        ("n=100..500", "n", (100, 200, 400)),
        ("n=128", "n", (128,)),
    ],
)
def test_sweeps_are_parsed(text: str, parameter: str, values: tuple[int, ...]) -> None:
    axis = parse_sweep(text)
    assert (axis.parameter, axis.values) == (parameter, values)


@pytest.mark.parametrize(
    "text",
    ["", "n", "n=", "n=a..b", "n=512..8", "n=0..8", "n=-4", "heads=1..4", "n=1.5..3", "n=1..2..4"],
)
def test_sweeps_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(HadError, match="sweep"):
        parse_sweep(text)


def test_sweeping_turns_the_right_knob() -> None:
    case = CostCase(BERT, context=256, n=30)
    by_context = sweep(case, parse_sweep("n=64..256"), ["standard"])
    assert [point.reports[0].workload.layers[0].key_length for point in by_context] == [
        64,
        128,
        256,
    ]
    assert [point.reports[0].workload.layers[0].query_length for point in by_context] == [
        64,
        128,
        256,
    ]
    by_kept = sweep(case, parse_sweep("topn=8,16"), ["had_digital"])
    assert [point.reports[0].workload.layers[0].n for point in by_kept] == [8, 16]


def render(table: object) -> str:
    console = Console(width=240, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_comparison_table_marks_published_figures_and_prints_notes() -> None:
    reports = compare(BERT.workload(128, 30), ["standard", "camformer", "spatten"])
    text = render(comparison_table(reports))
    assert "spatten *" in text
    assert "camformer *" not in text
    assert "at most 16 of 128 keys" in text


def test_breakdown_and_sweep_tables_name_every_part() -> None:
    report = evaluate(BERT.workload(128, 30), "camformer")
    text = render(breakdown_table(report))
    assert all(part.name in text for part in report.components)
    points = sweep(CostCase(BERT, 128, 30), parse_sweep("n=128,256"), NAMES)
    text = render(sweep_table(points, "latency_us"))
    assert all(name in text for name in [*NAMES, "128", "256"])


def test_reports_survive_json() -> None:
    report = evaluate(BERT.workload(128, 30), "standard")
    loaded = json.loads(json.dumps(as_dict(report)))
    assert loaded["quantities"] == report.quantities()
    total = sum(part["energy_pj"] for part in loaded["components"])
    assert total == pytest.approx(report.energy_pj)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_plots_are_written(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    reports = compare(BERT.workload(128, 30), NAMES)
    points = sweep(CostCase(BERT, 128, 30), parse_sweep("n=128,256"), NAMES)
    records = [
        {"score/drop": 30 - n, **cost_metrics(BERT.workload(128, n), NAMES)} for n in (8, 30)
    ]
    magic = {".png": b"\x89PNG", ".svg": b"<?xml"}[suffix]
    for path in (
        plot_breakdown(reports, tmp_path / "new" / f"breakdown{suffix}"),
        plot_sweep(points, tmp_path / f"sweep{suffix}"),
        plot_pareto(records, tmp_path / f"pareto{suffix}"),
    ):
        assert path.read_bytes().startswith(magic)


def test_plots_refuse_other_formats_and_empty_records(tmp_path: Path) -> None:
    with pytest.raises(HadError, match=r"written as \.png or \.svg"):
        plot_breakdown([], tmp_path / "plot.jpg")
    with pytest.raises(HadError, match="no record has both"):
        plot_pareto([{"score/drop": 1.0}], tmp_path / "plot.png")


def test_pareto_front_keeps_what_nothing_cheaper_reaches() -> None:
    points = [(3.0, 80.0), (1.0, 70.0), (2.0, 69.0), (4.0, 80.0), (5.0, 81.0), (1.0, 60.0)]
    assert pareto_front(points) == [(1.0, 70.0), (3.0, 80.0), (5.0, 81.0)]
