"""The CAMformer release's ledger and sweeps, printed values of TRACEABILITY.md and results.json."""

import pytest

from had.hardware.accelerator import PipelineAccelerator
from had.hardware.components import expected_recall
from had.hardware.costs import CostReport
from had.hardware.ledgers import camformer_workload, single_head_queries_per_mj
from had.hardware.spec import load_pipeline


def half_percent(value: float) -> object:
    return pytest.approx(value, rel=5e-3)


@pytest.fixture(scope="module")
def design() -> PipelineAccelerator:
    return load_pipeline("camformer")


@pytest.fixture(scope="module")
def report(design: PipelineAccelerator) -> CostReport:
    return design.evaluate(camformer_workload())


def test_cycles_of_the_three_stages(report: CostReport) -> None:
    assert [stage.cycles for stage in report.stages] == [327, 134, 260]


@pytest.mark.parametrize(
    ("component", "energy_nj", "area_um2"),
    [
        ("query_buffer", 0.0522, 2475.0),
        ("key_sram", 7.2704, 27728.6),
        ("cam", 4.2073, 2230.272),
        ("adc", 1.9456, 64000),
        ("scaler", 0.0502, 1338.2),
        ("top2", 0.7787, 8801.3),
        ("candidates", 0.1009, 6042.3),
        ("top32", 0.9374, 67016.9),
        ("table", 0.0454, 1612.4),
        ("divider", 0.0068, 441.5),
        ("accumulator", 0.0357, 2879.6),
        ("output_buffer", 0.1493, 5990.8),
        ("value_sram", 11.1040, 44820),
        ("value_macs", 9.1508, 23036.6),
        ("dram", 19.0874, 0),
    ],
)
def test_share_of_each_component(
    report: CostReport, component: str, energy_nj: float, area_um2: float
) -> None:
    part = next(part for part in report.components if part.name == component)
    assert part.energy_pj / 1e3 / 16 == half_percent(energy_nj)
    assert part.area_um2 == half_percent(area_um2)


def test_energy_area_and_power_of_the_whole(report: CostReport) -> None:
    assert report.energy_per_query_nj / 16 == half_percent(54.92)
    assert report.onchip_energy_per_query_nj / 16 == half_percent(35.835)
    assert report.area_mm2 * 1e6 == half_percent(258_414)
    assert report.onchip_power_w == half_percent(0.1096)
    assert report.power_w == half_percent(0.1680)


def test_stage_sums(report: CostReport) -> None:
    def total(stage: str) -> float:
        parts = [part for part in report.components if part.stage == stage and part.on_chip]
        return sum(part.energy_pj for part in parts) / 16e3

    assert total("association") == half_percent(14.405)
    assert total("normalisation") == half_percent(1.175)
    assert total("contextualisation") == half_percent(20.255)


def test_throughput_and_both_conventions_of_efficiency(report: CostReport) -> None:
    assert report.queries_per_ms == half_percent(191.13)
    assert report.queries_per_mj == half_percent(1138)
    assert single_head_queries_per_mj(report) == half_percent(9104)


def test_dram_bandwidth(report: CostReport) -> None:
    assert report.dram_traffic_mb * 1e-3 / report.busy_s == half_percent(50.1)


@pytest.mark.parametrize(("kept", "per_mj"), [(8, 12_130), (16, 10_920), (24, 9_930), (32, 9_104)])
def test_sweep_of_kept_keys(design: PipelineAccelerator, kept: int, per_mj: float) -> None:
    report = design.evaluate(camformer_workload(kept))
    assert single_head_queries_per_mj(report) == half_percent(per_mj)
    assert report.queries_per_ms == half_percent(191.1)


@pytest.mark.parametrize(
    ("rows", "per_ms", "per_mj", "area_mm2"),
    [
        (4, 120.4, 4_198, 0.2077),
        (8, 159.8, 6_625, 0.2246),
        (16, 191.1, 9_104, 0.2584),
        (32, 211.9, 10_600, 0.3260),
    ],
)
def test_sweep_of_tile_rows(
    design: PipelineAccelerator, rows: int, per_ms: float, per_mj: float, area_mm2: float
) -> None:
    report = design.with_rows(rows).evaluate(camformer_workload())
    assert report.queries_per_ms == half_percent(per_ms)
    assert single_head_queries_per_mj(report) == half_percent(per_mj)
    assert report.area_mm2 == half_percent(area_mm2)


@pytest.mark.parametrize(
    ("rows", "kept", "percent"),
    [
        (16, 8, 99.86),
        (16, 16, 99.35),
        (16, 24, 98.52),
        (16, 32, 97.41),
        (4, 32, 99.91),
        (8, 32, 99.42),
        (32, 32, 90.77),
    ],
)
def test_expected_recall(rows: int, kept: int, percent: float) -> None:
    assert 100 * expected_recall(1024, rows, 2, kept) == pytest.approx(percent, abs=0.006)


def test_projection_to_22_nm(report: CostReport, design: PipelineAccelerator) -> None:
    # The release's 45 to 22 nm factors: area 0.23, energy 0.23 / 0.48.
    small = design.at_node(22).evaluate(camformer_workload())
    assert small.area_mm2 / report.area_mm2 == half_percent(0.23)
    assert small.onchip_energy_pj / report.onchip_energy_pj == half_percent(0.23 / 0.48)


def test_a_short_sequence_gets_what_two_of_sixteen_can_give(design: PipelineAccelerator) -> None:
    # 25 keys fill two tiles, so four candidates remain whatever n asks for.
    layer = camformer_workload().layers[0]
    short = type(layer)(**{**vars(layer), "key_length": 25, "n": 30})
    report = design.evaluate(type(camformer_workload())((short,)))
    assert design.work(short).kept == 4
    assert any("at most 4 of 25 keys" in note for note in report.notes)
