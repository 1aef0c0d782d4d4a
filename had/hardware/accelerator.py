"""A pipelined attention accelerator composed of components: schedule, energy, area.

    cycles of a phase = max over its parts of (starts - 1) x interval  +  sum of their delays
    cycles of a stage = sum over its phases, one after the other
    interval of a head pass = the longest stage where stages overlap, their sum where they do not
    energy = passes x actions x energy per action, area = copies x area of one instance

Passes of a layer follow each other at the interval; layers depend on each other and do not overlap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from had.hardware.components.base import Component, Tiling
from had.hardware.costs import ComponentCost, CostReport, StageCost
from had.hardware.workload import (
    AttentionWorkload,
    HeadPass,
    LayerWorkload,
    head_pass,
    largest,
)

# How the stages of consecutive head passes relate; a spec names one of these.
INTERVALS: dict[str, Callable[[list[float]], float]] = {"overlapped": max, "sequential": sum}


@dataclass(frozen=True)
class Stage:
    """One stage of a head pass.

    Attributes:
        name: Name of the stage.
        phases: Names of the components on the critical path. The components of one phase work as
            a pipeline; phases follow each other.
    """

    name: str
    phases: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Operation:
    """What a design computes whatever the student does; None follows the workload.

    Attributes:
        dense: True for a softmax over all keys.
        bits_query: Bits of a query element.
        bits_key: Bits of a key element.
        bits_value: Bits of a value element.
    """

    dense: bool = False
    bits_query: int | None = None
    bits_key: int | None = None
    bits_value: int | None = None

    def apply(self, layer: LayerWorkload) -> LayerWorkload:
        """Return the layer as this design executes it."""
        return replace(
            layer,
            n=layer.key_length if self.dense else layer.n,
            exact=0.0 if self.dense else layer.exact,
            bits_query=self.bits_query or layer.bits_query,
            bits_key=self.bits_key or layer.bits_key,
            bits_value=self.bits_value or layer.bits_value,
        )


@dataclass(frozen=True)
class PipelineAccelerator:
    """An accelerator that prices a workload from its components.

    Attributes:
        name: Name of the spec.
        title: One line on what it is.
        node_nm: Node that all figures are scaled to.
        clock_ghz: Clock in GHz.
        tiling: The array that scores keys.
        stages: Stages in order.
        overlap: Key of `INTERVALS`.
        components: The parts.
        operation: What the design computes.
        beside: Parts that join the first stage where a workload has keys in full precision.
    """

    name: str
    title: str
    node_nm: int
    clock_ghz: float
    tiling: Tiling
    stages: tuple[Stage, ...]
    overlap: str
    components: tuple[Component, ...]
    operation: Operation = field(default_factory=Operation)
    beside: tuple[Component, ...] = ()

    def at_node(self, node_nm: int) -> PipelineAccelerator:
        """Return the same design at another node; the clock stays."""
        return replace(self, node_nm=node_nm)

    def with_rows(self, rows: int) -> PipelineAccelerator:
        """Return the same design with another number of array rows."""
        return replace(self, tiling=replace(self.tiling, rows=rows))

    def with_array(self, rows: int, columns: int) -> PipelineAccelerator:
        """Return the same design with another array."""
        return replace(self, tiling=Tiling(rows, columns))

    def with_exact_keys(self) -> PipelineAccelerator:
        """Return the same design with what keys in full precision need, beside its array."""
        stage, *others = self.stages
        parts = tuple(replace(part, stage=stage.name) for part in self.beside)
        first = (*stage.phases[0], *(part.name for part in parts))
        return replace(
            self,
            stages=(replace(stage, phases=(first, *stage.phases[1:])), *others),
            components=(*self.components, *parts),
            beside=(),
        )

    def work(self, layer: LayerWorkload) -> HeadPass:
        """Return one head pass of a layer as this design executes it."""
        work = head_pass(self.operation.apply(layer))
        limit = min(part.keeps(work, self.tiling) for part in self.components)
        return replace(work, kept=min(work.kept, limit))

    def stage_cycles(self, work: HeadPass) -> dict[str, float]:
        """Return the cycles of every stage for one head pass."""
        return {stage.name: self._cycles(stage, work) for stage in self.stages}

    def interval(self, work: HeadPass) -> float:
        """Return the cycles between two head passes in steady state."""
        return INTERVALS[self.overlap](list(self.stage_cycles(work).values()))

    def evaluate(self, workload: AttentionWorkload) -> CostReport:
        """Return the cost of a workload on this accelerator."""
        if self.beside and any(layer.exact for layer in workload.layers):
            return self.with_exact_keys().evaluate(workload)
        jobs = [(layer.passes, self.work(layer)) for layer in workload.layers]
        busy = sum(count * self.interval(work) for count, work in jobs)
        latency = sum(
            max(count - 1, 0) * self.interval(work) + sum(self.stage_cycles(work).values())
            for count, work in jobs
        )
        return CostReport(
            accelerator=self.name,
            title=self.title,
            workload=workload,
            components=tuple(self._cost(part, jobs) for part in self.components),
            stages=tuple(StageCost(stage.name, self._mean(stage, jobs)) for stage in self.stages),
            busy_s=busy / (self.clock_ghz * 1e9),
            latency_s=latency / (self.clock_ghz * 1e9),
            node_nm=self.node_nm,
            notes=self._notes(workload),
        )

    def part(self, name: str) -> Component:
        """Return the component of that name."""
        return next(part for part in self.components if part.name == name)

    def _cost(self, part: Component, jobs: list[tuple[float, HeadPass]]) -> ComponentCost:
        built_for = largest(tuple(work for _, work in jobs))
        unit, copies = part.unit_for(built_for), part.copies(built_for, self.tiling)
        return ComponentCost(
            name=part.name,
            stage=part.stage,
            energy_pj=sum(count * self._energy_pj(part, work) for count, work in jobs),
            area_um2=copies * unit.area.at(self.node_nm) if part.on_chip else 0.0,
            rated_mw=copies * unit.rated_mw(self.node_nm) if part.on_chip else 0.0,
            traffic_bits=sum(count * part.bits_moved(work, self.tiling) for count, work in jobs),
            on_chip=part.on_chip,
        )

    def _energy_pj(self, part: Component, work: HeadPass) -> float:
        # DRAM does not shrink with the logic of the chip, so it stays at the node of its source.
        unit = part.unit_for(work)
        node = self.node_nm if part.on_chip else unit.area.node_nm
        action = unit.action_pj(node, self.clock_ghz, self.tiling.rows)
        return part.actions(work, self.tiling) * action

    def _mean(self, stage: Stage, jobs: list[tuple[float, HeadPass]]) -> float:
        cycles = sum(count * self._cycles(stage, work) for count, work in jobs)
        return cycles / sum(count for count, _ in jobs)

    def _cycles(self, stage: Stage, work: HeadPass) -> float:
        return sum(self._phase_cycles(phase, work) for phase in stage.phases)

    def _phase_cycles(self, phase: tuple[str, ...], work: HeadPass) -> float:
        rows, issue, drain = self.tiling.rows, 0.0, 0.0
        for part in (self.part(name) for name in phase):
            starts, unit = part.starts(work, self.tiling), part.unit_for(work)
            # A part with nothing to do, as a top-N that keeps all keys, is passed by.
            if starts > 0:
                issue = max(issue, (starts - 1) * unit.interval.cycles(rows))
                drain += unit.delay.cycles(rows)
        return issue + drain

    def _notes(self, workload: AttentionWorkload) -> tuple[str, ...]:
        asked = largest(tuple(head_pass(self.operation.apply(one)) for one in workload.layers))
        notes = (part.note(asked, self.tiling) for part in self.components)
        return tuple(note for note in notes if note is not None)
