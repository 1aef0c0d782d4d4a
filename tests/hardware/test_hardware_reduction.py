"""The savings of arXiv 2502.01770 (abstract), from components at equal throughput."""

import pytest

from had.errors import HadError
from had.hardware.reduction import match_interval, reduction
from had.hardware.sensitivity import VARIATIONS, paper_workload, sensitivity
from had.hardware.spec import load_pipeline

PAPER_AREA, PAPER_POWER = 79.0, 87.0


def test_area_saved_comes_within_three_points_of_the_paper() -> None:
    found = reduction(load_pipeline("had_digital"), load_pipeline("standard"), paper_workload())
    assert found.area_percent == pytest.approx(PAPER_AREA, abs=3)


def test_power_saved_hangs_on_the_context_length() -> None:
    # The paper does not say for how many keys its figure holds: ours crosses it between 128 and 256
    # and is above it at 1,024.
    design, baseline = load_pipeline("had_digital"), load_pipeline("standard")
    short, middle, long = (
        reduction(design, baseline, paper_workload(keys)).power_percent for keys in (128, 256, 1024)
    )
    assert short < PAPER_POWER < middle < long


def test_the_point_nearest_to_both_figures() -> None:
    found = reduction(load_pipeline("camformer"), load_pipeline("standard"), paper_workload(512))
    assert found.area_percent == pytest.approx(PAPER_AREA, abs=1)
    assert found.power_percent == pytest.approx(PAPER_POWER, abs=4)


@pytest.mark.parametrize("name", ["had_digital", "camformer", "had_cam"])
def test_the_baseline_is_as_fast_and_no_larger_than_it_must(name: str) -> None:
    design, baseline = load_pipeline(name), load_pipeline("standard")
    layer = paper_workload().layers[0]
    ours = design.interval(design.work(layer)) / design.clock_ghz
    work = baseline.work(layer)
    sized = match_interval(baseline, work, ours)
    assert sized.interval(work) <= ours
    lanes = int(sized.part("score_macs").copies(work, sized.tiling))
    fewer = sized.part("score_macs").with_lanes(lanes - 1)
    assert fewer.uses(work, sized.tiling) + fewer.unit.delay.base - 1 > ours


def test_a_throughput_out_of_reach_is_refused() -> None:
    baseline = load_pipeline("standard")
    work = baseline.work(paper_workload().layers[0])
    with pytest.raises(HadError, match=r"association.*cannot finish in 2 cycles"):
        match_interval(baseline, work, 2)


def test_a_design_saves_nothing_against_itself() -> None:
    standard = load_pipeline("standard")
    found = reduction(standard, standard, paper_workload())
    assert found.area_percent == pytest.approx(0, abs=1)
    assert found.power_percent == pytest.approx(0, abs=1e-9)


def test_sensitivity_moves_in_the_right_direction() -> None:
    design, baseline = load_pipeline("had_digital"), load_pipeline("standard")
    found = dict(sensitivity(design, baseline))
    assert len(found) == len(VARIATIONS)
    base = found["base case: 1024 keys, N = 30, 45 nm"]
    assert found["65 nm"].area_percent == pytest.approx(base.area_percent)
    # Resident values are most of what is left of the area.
    assert found["SRAM of half the area a bit"].area_percent > base.area_percent
    assert found["SRAM of twice the area a bit"].area_percent < base.area_percent
    narrow = found["values of 8 bits in the design, 16 in the baseline"]
    assert narrow.area_percent > base.area_percent
    assert narrow.power_percent > base.power_percent
    assert found["1024 keys, N = 128"].power_percent < base.power_percent
