"""The 96 x 96 CAM ledger of January 2025: one query, 1,024 keys, 1,024 wide, top 30, 65 nm."""

import pytest

from had.hardware.accelerator import PipelineAccelerator
from had.hardware.ledgers import had_cam_workload
from had.hardware.spec import load_pipeline


@pytest.fixture(scope="module")
def design() -> PipelineAccelerator:
    return load_pipeline("had_cam").at_node(65)


@pytest.mark.parametrize(
    ("size", "area_mm2", "power_w"),
    [(32, 2.205, 3.320), (64, 2.311, 3.587), (96, 2.451, 3.972), (128, 2.566, 4.333)],
)
def test_area_and_rated_power_by_array_size(
    design: PipelineAccelerator, size: int, area_mm2: float, power_w: float
) -> None:
    report = design.with_array(size, size).evaluate(had_cam_workload())
    assert report.area_mm2 == pytest.approx(area_mm2, rel=0.01)
    assert report.rated_power_w == pytest.approx(power_w, rel=0.01)


@pytest.mark.parametrize(("size", "cycles"), [(32, 16_896), (64, 5_440), (96, 3_267), (128, 2_208)])
def test_cycles_of_the_score_stage(design: PipelineAccelerator, size: int, cycles: int) -> None:
    report = design.with_array(size, size).evaluate(had_cam_workload())
    assert report.stages[0].cycles == cycles


@pytest.mark.parametrize(("size", "microseconds"), [(32, 65), (64, 42), (96, 18_589.4 * 2e-3)])
def test_latency(design: PipelineAccelerator, size: int, microseconds: float) -> None:
    report = design.with_array(size, size).evaluate(had_cam_workload())
    assert report.latency_s * 1e6 == pytest.approx(microseconds, rel=0.01)


def test_an_array_of_128_rows_passes_fewer_keys_than_thirty(design: PipelineAccelerator) -> None:
    # Three of each of eight tiles: the printed 35 us take thirty.
    report = design.with_array(128, 128).evaluate(had_cam_workload())
    assert any("at most 24 of 1024 keys" in note for note in report.notes)
    assert report.latency_s * 1e6 < 35


@pytest.mark.parametrize(
    ("component", "area_mm2", "power_w"),
    [
        ("query_buffer", 0.0372, 0.0699),
        ("key_sram", 1.051, 0.0),
        ("match_lines", 0.0383, 0.0721),
        ("cam", 0.0304, 0.2268),
        ("adc", 0.0821, 0.1704),
        ("times8", 0.0251, 0.0744),
        ("subtractor", 0.0384, 0.0916),
        ("accumulator", 0.0432, 0.0671),
        ("top3", 0.0072, 0.0038),
        ("top30", 0.008568, 0.009971),
        ("softmax", 0.017464, 0.024991),
        ("sparse_matmul", 0.041092, 3.130),
        ("value_sram", 1.023, 0.016017),
    ],
)
def test_rows_of_the_96_table(
    design: PipelineAccelerator, component: str, area_mm2: float, power_w: float
) -> None:
    report = design.evaluate(had_cam_workload())
    part = next(part for part in report.components if part.name == component)
    # The table prints some rows to two digits.
    assert part.area_um2 / 1e6 == pytest.approx(area_mm2, rel=0.01)
    assert part.rated_mw / 1e3 == pytest.approx(power_w, rel=0.015)
