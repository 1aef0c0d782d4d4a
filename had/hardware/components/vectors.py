"""Units that work through the kept keys one by one, and buffers around them."""

from __future__ import annotations

from dataclasses import dataclass

from had.hardware.components.base import Component, Parallel, Tiling, ceil_div
from had.hardware.workload import HeadPass


@dataclass(frozen=True)
class PerKept(Parallel):
    """A circuit every kept key passes: exponential table, accumulator, divider, output buffer.

    Attributes:
        lanes: Keys in parallel.
        times: How often each key passes.
    """

    lanes: int = 1
    times: int = 1

    def copies(self, work: HeadPass, tiling: Tiling) -> float:
        return self.lanes

    def uses(self, work: HeadPass, tiling: Tiling) -> float:
        return self.times * ceil_div(work.kept, self.lanes)

    def actions(self, work: HeadPass, tiling: Tiling) -> float:
        return self.times * work.kept


@dataclass(frozen=True)
class QueryBuffer(Component):
    """Holds the query: loaded once, then shown to every tile."""

    def uses(self, work: HeadPass, tiling: Tiling) -> float:
        return 1 + tiling.tiles(work)


@dataclass(frozen=True)
class RowsBuffer(Component):
    """A query buffer whose size follows the array rows, loaded once a pass."""

    reference_rows: int

    def copies(self, work: HeadPass, tiling: Tiling) -> float:
        return tiling.rows / self.reference_rows

    def uses(self, work: HeadPass, tiling: Tiling) -> float:
        return 1.0
