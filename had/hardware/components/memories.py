"""Memories: on-chip SRAM and registers, and DRAM behind them.

A memory is built for what the workload puts in it: the shipped macro as long as that suffices,
proportionally more of it beyond. The energy of an access stays that of the macro (banked memory,
wires between banks left out).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from had.hardware.components.base import Component, Tiling, ceil_div
from had.hardware.workload import EXACT_BITS, HeadPass


@dataclass(frozen=True)
class Memory(Component):
    """An SRAM or register file; one action moves one word.

    Attributes:
        word_bits: Bits of one access.
        capacity_bits: Bits that one instance of the unit stores.
    """

    word_bits: int
    capacity_bits: int

    @abstractmethod
    def stored_bits(self, work: HeadPass, tiling: Tiling) -> float:
        """Return the bits this memory must hold."""

    @abstractmethod
    def read_bits(self, work: HeadPass) -> float:
        """Return the bits read on the critical path of one head pass."""

    def copies(self, work: HeadPass, tiling: Tiling) -> float:
        return max(1.0, self.stored_bits(work, tiling) / self.capacity_bits)

    def uses(self, work: HeadPass, tiling: Tiling) -> float:
        return ceil_div(self.read_bits(work), self.word_bits)

    def actions(self, work: HeadPass, tiling: Tiling) -> float:
        return self.uses(work, tiling)

    def bits_moved(self, work: HeadPass, tiling: Tiling) -> float:
        return self.actions(work, tiling) * self.word_bits

    def note(self, work: HeadPass, tiling: Tiling) -> str | None:
        copies = self.copies(work, tiling)
        if copies <= 1:
            return None
        return f"{self.name} holds {copies:.3g} times the shipped {self.capacity_bits / 8192:g} KiB"


@dataclass(frozen=True)
class BitMemory(Memory):
    """A memory given per bit: it is exactly as large as the workload asks."""

    capacity_bits: int = 1

    def copies(self, work: HeadPass, tiling: Tiling) -> float:
        return self.stored_bits(work, tiling) / self.capacity_bits

    def note(self, work: HeadPass, tiling: Tiling) -> str | None:
        return None


@dataclass(frozen=True)
class KeyMemory(Memory):
    """Keys of one head, all read for every query row."""

    def stored_bits(self, work: HeadPass, tiling: Tiling) -> float:
        return work.keys * work.dim * work.bits_key

    def read_bits(self, work: HeadPass) -> float:
        return work.keys * work.dim * work.bits_key


@dataclass(frozen=True)
class ValueMemory(Memory):
    """Values of one head, resident; only the kept rows are read."""

    def stored_bits(self, work: HeadPass, tiling: Tiling) -> float:
        return work.keys * work.value_dim * work.bits_value

    def read_bits(self, work: HeadPass) -> float:
        return work.kept * work.value_dim * work.bits_value


@dataclass(frozen=True)
class ValuePrefetch(ValueMemory):
    """Values of the candidates only, fetched while scoring goes on.

    Every tile writes the values of its candidates in one access; the kept ones are read. A pruned
    candidate's place is free again, so `slots_per_kept` candidates for each kept key suffice.
    """

    slots_per_kept: int

    def stored_bits(self, work: HeadPass, tiling: Tiling) -> float:
        candidates = min(self.slots_per_kept * work.kept, work.keys)
        return candidates * work.value_dim * work.bits_value

    def starts(self, work: HeadPass, tiling: Tiling) -> float:
        return super().uses(work, tiling)

    def uses(self, work: HeadPass, tiling: Tiling) -> float:
        return super().uses(work, tiling) + tiling.row_tiles(work)


@dataclass(frozen=True)
class KeyBits(BitMemory, KeyMemory):
    """Keys of one head in SRAM that is given per bit."""


@dataclass(frozen=True)
class ExactKeyBits(BitMemory):
    """The query and the keys that are scored in full precision, in SRAM that is given per bit."""

    def stored_bits(self, work: HeadPass, tiling: Tiling) -> float:
        return self.read_bits(work)

    def read_bits(self, work: HeadPass) -> float:
        return (work.exact + 1) * work.dim * EXACT_BITS if work.exact else 0.0

    def uses(self, work: HeadPass, tiling: Tiling) -> float:
        return super().uses(work, tiling) if work.exact else 0.0


@dataclass(frozen=True)
class ValueBits(BitMemory, ValueMemory):
    """Values of one head in SRAM that is given per bit."""


@dataclass(frozen=True)
class ScoreBits(BitMemory):
    """Scores of the kept keys between the stages, two sets of them: one filled, one drained.

    Each is written and read before the exponential and again before the division.
    """

    score_bits: int = 16

    def stored_bits(self, work: HeadPass, tiling: Tiling) -> float:
        return 2 * work.kept * self.score_bits

    def read_bits(self, work: HeadPass) -> float:
        return 4 * work.kept * self.score_bits


@dataclass(frozen=True)
class VectorBits(BitMemory):
    """Registers of the query and of the output row, written once each a pass."""

    output_bits: int = 16

    def stored_bits(self, work: HeadPass, tiling: Tiling) -> float:
        return work.dim * work.bits_query + work.value_dim * self.output_bits

    def read_bits(self, work: HeadPass) -> float:
        return work.dim * work.bits_query + work.value_dim * self.output_bits


@dataclass(frozen=True)
class DramGather(Component):
    """DRAM that hands over the values of each tile's candidates; one action is one tile's fetch.

    Attributes:
        keep: Candidates of a tile.
        reference_bits: Bits of the fetch that the unit describes.
    """

    on_chip: ClassVar[bool] = False

    keep: int
    reference_bits: int

    def bits_moved(self, work: HeadPass, tiling: Tiling) -> float:
        return tiling.row_tiles(work) * self.keep * work.value_dim * work.bits_value

    def uses(self, work: HeadPass, tiling: Tiling) -> float:
        return tiling.row_tiles(work)

    def actions(self, work: HeadPass, tiling: Tiling) -> float:
        return self.bits_moved(work, tiling) / self.reference_bits


@dataclass(frozen=True)
class DramStream(Component):
    """DRAM that loads keys and values once and moves queries and outputs; one action is one bit.

    The keys and values of a key/value head are loaded once and shared by all query rows of all
    heads that use them.
    """

    on_chip: ClassVar[bool] = False

    output_bits: int = 16

    def bits_moved(self, work: HeadPass, tiling: Tiling) -> float:
        loaded = work.keys * (work.dim * work.bits_key + work.value_dim * work.bits_value)
        row = work.dim * work.bits_query + work.value_dim * self.output_bits
        if work.exact:
            loaded += work.exact_loaded * work.dim * EXACT_BITS
            row += work.dim * EXACT_BITS
        return loaded / work.sharing + row

    def uses(self, work: HeadPass, tiling: Tiling) -> float:
        return self.bits_moved(work, tiling)
