"""How far the savings of a design hang on each assumption: one variation at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from had.hardware.accelerator import PipelineAccelerator
from had.hardware.components.base import Component
from had.hardware.components.memories import KeyBits, Memory, ValueBits
from had.hardware.reduction import Reduction, map_parts, reduction
from had.hardware.workload import AttentionWorkload, LayerWorkload

Pair = tuple[PipelineAccelerator, PipelineAccelerator, AttentionWorkload]


@dataclass(frozen=True)
class Variation:
    """One changed assumption.

    Attributes:
        name: What is changed, for a table.
        change: Takes design, baseline and workload, returns them changed.
    """

    name: str
    change: Callable[[PipelineAccelerator, PipelineAccelerator, AttentionWorkload], Pair]


def paper_workload(keys: float = 1024, n: float = 30) -> AttentionWorkload:
    """Return the shape the savings are stated for: 12 heads of 64 over `keys` keys and queries.

    1,024 keys is the longest context of the paper's experiments and the size of both ledgers of its
    group; n = 30 is the paper's.
    """
    layer = LayerWorkload(
        heads=12,
        kv_heads=12,
        head_dim=64,
        value_dim=64,
        query_length=keys,
        key_length=keys,
        n=n,
    )
    return AttentionWorkload((layer,), f"12 heads of 64, {keys:g} keys, N = {n:g}")


def sensitivity(
    design: PipelineAccelerator, baseline: PipelineAccelerator
) -> list[tuple[str, Reduction]]:
    """Return the savings of `design` under every variation of `VARIATIONS`, the base case first."""
    return [
        (variation.name, reduction(*variation.change(design, baseline, paper_workload())))
        for variation in VARIATIONS
    ]


def _workload(keys: float = 1024, n: float = 30) -> Variation:
    return Variation(
        f"{keys:g} keys, N = {n:g}",
        lambda design, baseline, _: (design, baseline, paper_workload(keys, n)),
    )


def _node(node_nm: int) -> Variation:
    return Variation(
        f"{node_nm} nm", lambda design, baseline, work: (design.at_node(node_nm), baseline, work)
    )


def _both(name: str, change: Callable[[Component], Component]) -> Variation:
    return Variation(
        name,
        lambda design, baseline, work: (
            map_parts(design, change),
            map_parts(baseline, change),
            work,
        ),
    )


def _sram_area(factor: float) -> Callable[[Component], Component]:
    def change(part: Component) -> Component:
        if not isinstance(part, Memory):
            return part
        area = replace(part.unit.area, value=part.unit.area.value * factor)
        return replace(part, unit=replace(part.unit, area=area))

    return change


def _value_bits(bits: int) -> Variation:
    def change(
        design: PipelineAccelerator, baseline: PipelineAccelerator, work: AttentionWorkload
    ) -> Pair:
        layers = tuple(replace(layer, bits_value=bits) for layer in work.layers)
        return design, baseline, replace(work, layers=layers)

    return Variation(f"values of {bits} bits in the design, 16 in the baseline", change)


def _shared_reads(rows: int) -> Variation:
    def _wider(memory: Memory) -> Component:
        # A word read once for `rows` queries costs each of them as a word `rows` times as wide.
        return replace(memory, word_bits=memory.word_bits * rows)

    def keys(part: Component) -> Component:
        return _wider(part) if isinstance(part, KeyBits) else part

    def keys_and_values(part: Component) -> Component:
        return _wider(part) if isinstance(part, KeyBits | ValueBits) else part

    return Variation(
        f"one read of keys, and of dense values, serves {rows} queries",
        lambda design, baseline, work: (
            map_parts(design, keys),
            map_parts(baseline, keys_and_values),
            work,
        ),
    )


def _without_resident_values() -> Variation:
    def change(part: Component) -> Component:
        return replace(part, capacity_bits=8) if isinstance(part, ValueBits) else part

    return Variation(
        "the design holds an eighth of the values at a time",
        lambda design, baseline, work: (map_parts(design, change), baseline, work),
    )


VARIATIONS: tuple[Variation, ...] = (
    Variation("base case: 1024 keys, N = 30, 45 nm", lambda *case: case),
    _workload(keys=128),
    _workload(keys=197),
    _workload(keys=256),
    _workload(keys=512),
    _workload(keys=4096),
    _workload(n=16),
    _workload(n=64),
    _workload(n=128),
    _node(65),
    _node(22),
    _node(7),
    _both("SRAM of half the area a bit", _sram_area(0.5)),
    _both("SRAM of twice the area a bit", _sram_area(2.0)),
    _value_bits(8),
    _shared_reads(8),
    _without_resident_values(),
)
