"""What a component is: a counting rule over one head pass, and a unit that says what a count costs.

Energy is actions x energy per action, area is copies x area of one instance, and the cycles of a
stage come from `starts` and the unit's delay and interval. A subclass states only its counts.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

from had.hardware.technology import Unit
from had.hardware.workload import HeadPass


@dataclass(frozen=True)
class Tiling:
    """The array that scores keys: how many at a time, and over how many columns.

    Attributes:
        rows: Keys scored in parallel.
        columns: Elements of a key compared in parallel.
    """

    rows: int
    columns: int

    def row_tiles(self, work: HeadPass) -> int:
        """Return the groups of `rows` keys; a part of a group costs a whole one."""
        return ceil_div(work.keys, self.rows)

    def tiles(self, work: HeadPass) -> int:
        """Return the array loads that score all keys over their whole width."""
        return self.row_tiles(work) * ceil_div(work.dim, self.columns)


@dataclass(frozen=True)
class Component(ABC):
    """A part of an accelerator.

    Attributes:
        name: Unique within its accelerator.
        stage: Stage its cost is booked under.
        unit: Cost of one instance.
    """

    on_chip: ClassVar[bool] = True

    name: str
    stage: str
    unit: Unit

    @abstractmethod
    def uses(self, work: HeadPass, tiling: Tiling) -> float:
        """Return how often the component is activated in one head pass."""

    def copies(self, work: HeadPass, tiling: Tiling) -> float:
        """Return the instances on the die, in units of `unit`."""
        return 1.0

    def actions(self, work: HeadPass, tiling: Tiling) -> float:
        """Return the actions paid for: by default all instances at every use."""
        return self.uses(work, tiling) * self.copies(work, tiling)

    def starts(self, work: HeadPass, tiling: Tiling) -> float:
        """Return the starts on the critical path; by default every use."""
        return self.uses(work, tiling)

    def bits_moved(self, work: HeadPass, tiling: Tiling) -> float:
        """Return the memory traffic in bits; 0 for what is no memory."""
        return 0.0

    def with_lanes(self, lanes: int) -> Component:
        """Return the component with that many parallel lanes; unchanged if it has none."""
        return self

    def unit_for(self, work: HeadPass) -> Unit:
        """Return the unit that serves this work."""
        return self.unit

    def keeps(self, work: HeadPass, tiling: Tiling) -> float:
        """Return the most keys this component lets through to the softmax."""
        return math.inf

    def note(self, work: HeadPass, tiling: Tiling) -> str | None:
        """Return a sentence on where the shipped part had to be stretched, or None."""
        return None


@dataclass(frozen=True)
class Parallel(Component):
    """A component that works on `lanes` items at a time, and can be given more of them."""

    lanes: int

    def with_lanes(self, lanes: int) -> Component:
        return replace(self, lanes=lanes)


def ceil_div(amount: float, size: float) -> int:
    """Return how many blocks of `size` hold `amount`, at least one."""
    return max(1, math.ceil(amount / size - 1e-9))
