"""Constants with a unit, a node and a source, and how they move between nodes.

Scaling follows A. Stillmaker and B. Baas, "Scaling equations for the accurate prediction of CMOS
device performance from 180 nm to 7 nm", Integration 58, 2017. The numbers are in
`tables/scaling.yaml`; this module only reads and applies them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from had.errors import HadError
from had.hardware.yaml_file import Section, read_yaml

TABLES = Path(__file__).parent / "tables"

# Factor to the unit the model computes in: pJ, um2 and mW.
UNITS: dict[str, dict[str, float]] = {
    "energy": {"fJ": 1e-3, "pJ": 1.0, "nJ": 1e3},
    "area": {"um2": 1.0, "mm2": 1e6},
    "power": {"uW": 1e-3, "mW": 1.0, "W": 1e3},
}


@dataclass(frozen=True)
class NodeScaling:
    """Area and switching energy of one node relative to 45 nm at 1 V.

    Attributes:
        area: Area of the same circuit, 45 nm = 1.
        energy: Switching energy of the same circuit, 45 nm = 1. At a constant clock it scales
            power alike.
    """

    area: float
    energy: float


@dataclass(frozen=True)
class Quantity:
    """One sourced constant.

    Attributes:
        kind: "energy", "area" or "power".
        value: The number as its source prints it.
        unit: One of the units in `UNITS[kind]`.
        node_nm: Node at which the source gives it, in nm.
        source: Where the number comes from, as text for a reader.
    """

    kind: str
    value: float
    unit: str
    node_nm: int
    source: str

    def at(self, node_nm: int) -> float:
        """Return the value at `node_nm` in pJ, um2 or mW.

        Raises:
            HadError: A node is not in the scaling table.
        """
        return self.raw() * _factor(self.kind, node_nm) / _factor(self.kind, self.node_nm)

    def raw(self) -> float:
        """Return the value at its own node in pJ, um2 or mW."""
        return self.value * UNITS[self.kind][self.unit]


@dataclass(frozen=True)
class Delay:
    """Clock cycles of a unit, growing with the rows of the array it serves.

    Attributes:
        base: Cycles whatever the array.
        per_row: Further cycles per array row.
    """

    base: float
    per_row: float = 0.0

    def cycles(self, rows: int) -> float:
        """Return the cycles for an array of `rows` rows."""
        return self.base + self.per_row * rows


@dataclass(frozen=True)
class Unit:
    """What one instance of a component costs.

    A unit states either the energy of one action or, as synthesis reports do, its power while
    active; then an action costs power x delay / clock.

    Attributes:
        area: Silicon area of one instance.
        energy: Energy of one action, or None where `power` is given.
        power: Power while active, or None where `energy` is given.
        delay: Cycles from input to output.
        interval: Cycles between two starts; 1 for a pipelined unit, `delay` for one that is not.
    """

    area: Quantity
    energy: Quantity | None
    power: Quantity | None
    delay: Delay
    interval: Delay

    def action_pj(self, node_nm: int, clock_ghz: float, rows: int) -> float:
        """Return the energy of one action in pJ (mW x cycles / GHz is pJ)."""
        if self.energy is not None:
            return self.energy.at(node_nm)
        assert self.power is not None, "the reader of specs admits no unit without either"
        return self.power.at(node_nm) * self.delay.cycles(rows) / clock_ghz

    def rated_mw(self, node_nm: int) -> float:
        """Return the power the source rates this unit at in mW, 0 where it gives none."""
        return 0.0 if self.power is None else self.power.at(node_nm)


def scaling(node_nm: int) -> NodeScaling:
    """Return the scaling of one node relative to 45 nm.

    Raises:
        HadError: The node is not in the table.
    """
    table = _scaling_table()
    if node_nm not in table:
        known = ", ".join(str(node) for node in sorted(table))
        raise HadError(f"no scaling for node {node_nm} nm; known nodes: {known}")
    return table[node_nm]


def _factor(kind: str, node_nm: int) -> float:
    factors = scaling(node_nm)
    return {"area": factors.area, "energy": factors.energy, "power": factors.energy}[kind]


@lru_cache(maxsize=1)
def _scaling_table() -> dict[int, NodeScaling]:
    section = read_yaml(TABLES / "scaling.yaml")
    nodes = section.section("nodes")
    return {int(node): _node_scaling(nodes.section(node)) for node in nodes}


def _node_scaling(section: Section) -> NodeScaling:
    section.text("source")
    return NodeScaling(area=section.number("area"), energy=section.number("energy"))
