"""Arrays that score keys, what follows each row of them, and the multipliers of the values."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

from had.errors import HadError
from had.hardware.components.base import Component, Parallel, Tiling, ceil_div
from had.hardware.technology import Unit
from had.hardware.workload import EXACT_BITS, HeadPass


@dataclass(frozen=True)
class CamArray(Component):
    """Binary content-addressable array; one action is one search of the whole array.

    The unit describes `reference_rows` x `reference_columns` cells; area and energy follow the
    number of cells.
    """

    reference_rows: int
    reference_columns: int

    def copies(self, work: HeadPass, tiling: Tiling) -> float:
        cells = tiling.rows * tiling.columns
        return cells / (self.reference_rows * self.reference_columns)

    def uses(self, work: HeadPass, tiling: Tiling) -> float:
        return tiling.tiles(work)


@dataclass(frozen=True)
class ReprogrammedCam(CamArray):
    """A CAM smaller than the key set: every tile is written, then searched.

    A write of `rows_per_write` rows costs as much as a search (tmo324/CAMformerV1, Simulate.ipynb:
    programming is assumed equal to searching).
    """

    rows_per_write: int

    def uses(self, work: HeadPass, tiling: Tiling) -> float:
        writes = ceil_div(tiling.rows, self.rows_per_write)
        return tiling.tiles(work) * (writes + 1)


@dataclass(frozen=True)
class RowUnit(Component):
    """A circuit behind every array row, used once a tile.

    The unit describes `reference_rows` of them together.
    """

    reference_rows: int = 1

    def copies(self, work: HeadPass, tiling: Tiling) -> float:
        return tiling.rows / self.reference_rows

    def uses(self, work: HeadPass, tiling: Tiling) -> float:
        return tiling.tiles(work)


@dataclass(frozen=True)
class WideRowUnit(RowUnit):
    """A row circuit whose cost is proportional to the bits of a converted score.

    A score has ceil(log2(columns)) + `extra_bits` bits; the unit describes `reference_bits`.
    Registers, shifters and adders are of this kind.
    """

    reference_bits: int = 1
    extra_bits: float = 0.0

    def score_bits(self, tiling: Tiling) -> float:
        """Return the bits of a score of this array."""
        return math.ceil(math.log2(tiling.columns)) + self.extra_bits

    def copies(self, work: HeadPass, tiling: Tiling) -> float:
        width = self.score_bits(tiling) / self.reference_bits
        return super().copies(work, tiling) * width


@dataclass(frozen=True)
class Adc(WideRowUnit):
    """A converter behind every row; its cost doubles with every bit.

    R. H. Walden, "Analog-to-digital converter survey and analysis", IEEE JSAC 17(4), 1999: energy
    of a conversion is proportional to 2^bits.
    """

    def copies(self, work: HeadPass, tiling: Tiling) -> float:
        doublings = self.score_bits(tiling) - self.reference_bits
        return RowUnit.copies(self, work, tiling) * 2.0**doublings


@dataclass(frozen=True)
class MacArray(Parallel):
    """`lanes` multipliers with accumulator; one action is one product.

    Attributes:
        lanes: Products in parallel.
        units: Unit for each operand width in bits; the narrowest that fits is taken. `unit` is
            its widest.
        products_per_use: Products a lane finishes in one use.
    """

    units: tuple[tuple[int, Unit], ...]
    products_per_use: int = 1

    @abstractmethod
    def width(self, work: HeadPass) -> int:
        """Return the operand width in bits."""

    @abstractmethod
    def products(self, work: HeadPass) -> float:
        """Return the products of one head pass."""

    def copies(self, work: HeadPass, tiling: Tiling) -> float:
        return self.lanes

    def uses(self, work: HeadPass, tiling: Tiling) -> float:
        return ceil_div(self.products(work), self.lanes * self.products_per_use)

    def actions(self, work: HeadPass, tiling: Tiling) -> float:
        # Lanes without a product in the last use are idle and cost nothing.
        return self.products(work) / self.products_per_use

    def unit_for(self, work: HeadPass) -> Unit:
        width = self.width(work)
        for bits, unit in self.units:
            if bits >= width:
                return unit
        raise HadError(f"component '{self.name}' has no unit for operands of {width} bits")


@dataclass(frozen=True)
class ScoreMacs(MacArray):
    """Query times key: keys x dim products, XNOR and count where both have one bit."""

    def width(self, work: HeadPass) -> int:
        return max(work.bits_query, work.bits_key)

    def products(self, work: HeadPass) -> float:
        return work.keys * work.dim


@dataclass(frozen=True)
class ExactMacs(MacArray):
    """Query times key at full width, for the few keys that are no bits to this query."""

    def width(self, work: HeadPass) -> int:
        return EXACT_BITS

    def products(self, work: HeadPass) -> float:
        return work.exact * work.dim

    def copies(self, work: HeadPass, tiling: Tiling) -> float:
        return super().copies(work, tiling) if work.exact else 0.0

    def uses(self, work: HeadPass, tiling: Tiling) -> float:
        return super().uses(work, tiling) if work.exact else 0.0


@dataclass(frozen=True)
class ValueMacs(MacArray):
    """Probabilities times values: kept x value_dim products, dense where all keys are kept."""

    def width(self, work: HeadPass) -> int:
        return work.bits_value

    def products(self, work: HeadPass) -> float:
        return work.kept * work.value_dim
