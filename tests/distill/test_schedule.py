"""The schedule as a function of the step."""

from __future__ import annotations

import pytest

from had.attention.binarize import SharpTanh, Sign, SoftTanh
from had.config import DECAYS as DECAY_NAMES
from had.config import ScheduleConfig, StageConfig, StageWeights
from had.distill.schedule import DECAYS, Schedule


def paper(**changes: object) -> ScheduleConfig:
    stages = [
        StageConfig("soft", "soft", [5.0, 1.0], 0.25, StageWeights()),
        StageConfig("sharp", "sharp", [1.0, 0.05], 0.25, StageWeights()),
        StageConfig("sign", "sign", None, 0.35, StageWeights()),
        StageConfig("polish", "sign", None, 0.15, StageWeights(attention=0.0), 0.1),
    ]
    return ScheduleConfig("paper", 1.0, 1e-4, warmup=0.1, stages=stages, **changes)


def test_borders_divide_the_steps_by_share() -> None:
    schedule = Schedule(paper(), 200)
    assert schedule.borders == [50, 100, 170, 200]
    names = [schedule.stage(step).name for step in (0, 49, 50, 99, 100, 169, 170, 199, 500)]
    assert names == [
        *("soft", "soft", "sharp", "sharp", "sign", "sign"),
        *("polish", "polish", "polish"),
    ]


def test_sharpness_runs_from_end_to_end_of_its_range_geometrically() -> None:
    schedule = Schedule(paper(), 200)
    assert schedule.sharpness(0) == 5.0
    assert schedule.sharpness(49) == pytest.approx(1.0)
    assert schedule.sharpness(50) == 1.0
    assert schedule.sharpness(99) == pytest.approx(0.05)
    ratios = [schedule.sharpness(s + 1) / schedule.sharpness(s) for s in range(0, 48)]
    assert max(ratios) == pytest.approx(min(ratios))
    assert schedule.sharpness(150) == 1.0


def test_each_stage_has_its_relaxation_and_the_sign_its_clip() -> None:
    schedule = Schedule(paper(), 200, ste_clip=2.5)
    kinds = [type(schedule.relaxation(step)) for step in (0, 60, 120, 190)]
    assert kinds == [SoftTanh, SharpTanh, Sign, Sign]
    assert schedule.relaxation(120).clip == 2.5


def test_learning_rate_rises_falls_to_zero_and_obeys_the_stage() -> None:
    schedule = Schedule(paper(), 200)
    rate = [schedule.learning_rate_factor(step) for step in range(200)]
    assert rate[0] == pytest.approx(1 / 20)
    assert max(rate) == rate[19] == 1.0
    assert rate[169] == pytest.approx(31 / 180)
    assert rate[170] == pytest.approx(0.1 * 30 / 180)
    assert schedule.learning_rate_factor(200) == 0.0


@pytest.mark.parametrize(
    ("decay", "halfway"), [("linear", 0.5), ("cosine", 0.5), ("constant", 1), ("late", 1)]
)
def test_decays_end_where_they_should(decay: str, halfway: float) -> None:
    config = paper(decay=decay, final_factor=0.2)
    config.stages[3].learning_rate_factor = 1.0
    schedule = Schedule(config, 220)
    assert schedule.learning_rate_factor(121) == pytest.approx(0.2 + 0.8 * halfway)
    last = schedule.learning_rate_factor(220)
    assert last == pytest.approx(1.0 if decay == "constant" else 0.2)


def test_a_late_decay_is_linear_in_the_last_quarter() -> None:
    config = paper(decay="late")
    config.stages[3].learning_rate_factor = 1.0
    rates = [Schedule(config, 220).learning_rate_factor(step) for step in (22, 170, 195, 220)]
    assert rates == pytest.approx([1, 1, 4 * 25 / 198, 0])


def test_the_configuration_knows_exactly_these_decays() -> None:
    assert set(DECAY_NAMES) == set(DECAYS)


def test_shares_that_do_not_divide_evenly_still_cover_every_step() -> None:
    schedule = Schedule(paper(), 7)
    assert schedule.borders[-1] == 7
    assert [schedule.stage_index(step) for step in range(7)] == [0, 0, 1, 1, 2, 2, 3]
