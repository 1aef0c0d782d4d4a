"""What a design saves against the dense baseline at equal throughput.

Nothing is fitted: the baseline's multipliers and softmax lanes are as many as it takes to start a
head pass as often as the design does, and both are then priced from their components. At equal
throughput the ratio of powers is the ratio of energies per query.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from had.errors import HadError
from had.hardware.accelerator import PipelineAccelerator, Stage
from had.hardware.components.base import Component
from had.hardware.workload import AttentionWorkload, HeadPass

MAX_LANES = 1_000_000


@dataclass(frozen=True)
class Reduction:
    """Savings of a design against its baseline, as percentages of the baseline.

    Attributes:
        design: Name of the design.
        area_percent: Chip area saved.
        power_percent: On-chip power saved.
        interval_cycles: Clock cycles of the baseline between two head passes, for both.
    """

    design: str
    area_percent: float
    power_percent: float
    interval_cycles: float


def reduction(
    design: PipelineAccelerator, baseline: PipelineAccelerator, workload: AttentionWorkload
) -> Reduction:
    """Return the savings of `design` against `baseline` resized to the same throughput.

    Args:
        design: The design to judge.
        baseline: The dense design, resized and taken to the node of `design`.
        workload: One layer, or several of the same shape.

    Raises:
        HadError: The baseline cannot be made that fast.
    """
    layer = workload.layers[0]
    seconds = design.interval(design.work(layer)) / design.clock_ghz
    sized = match_interval(
        baseline.at_node(design.node_nm), baseline.work(layer), seconds * baseline.clock_ghz
    )
    ours, theirs = design.evaluate(workload), sized.evaluate(workload)
    return Reduction(
        design=design.name,
        area_percent=100 * (1 - ours.area_mm2 / theirs.area_mm2),
        power_percent=100 * (1 - ours.onchip_energy_pj / theirs.onchip_energy_pj),
        interval_cycles=sized.interval(sized.work(layer)),
    )


def match_interval(
    design: PipelineAccelerator, work: HeadPass, cycles: float
) -> PipelineAccelerator:
    """Return the design with the fewest lanes that starts a head pass every `cycles` cycles.

    Raises:
        HadError: Not even a million lanes suffice.
    """
    for stage in design.stages:
        design = _match_stage(design, stage, work, cycles)
    return design


def _match_stage(
    design: PipelineAccelerator, stage: Stage, work: HeadPass, cycles: float
) -> PipelineAccelerator:
    low, high = 0, MAX_LANES
    if _stage_cycles(_with_lanes(design, stage, high), stage, work) > cycles:
        raise HadError(
            f"stage '{stage.name}' of '{design.name}' cannot finish in {cycles:g} cycles"
        )
    while high - low > 1:
        middle = (low + high) // 2
        fits = _stage_cycles(_with_lanes(design, stage, middle), stage, work) <= cycles
        low, high = (low, middle) if fits else (middle, high)
    return _with_lanes(design, stage, high)


def _stage_cycles(design: PipelineAccelerator, stage: Stage, work: HeadPass) -> float:
    return design.stage_cycles(work)[stage.name]


def _with_lanes(design: PipelineAccelerator, stage: Stage, lanes: int) -> PipelineAccelerator:
    path = {name for phase in stage.phases for name in phase}

    def resize(part: Component) -> Component:
        return part.with_lanes(lanes) if part.name in path else part

    return map_parts(design, resize)


def map_parts(
    design: PipelineAccelerator, change: Callable[[Component], Component]
) -> PipelineAccelerator:
    """Return the design with every component passed through `change`."""
    return replace(design, components=tuple(change(part) for part in design.components))
