"""Reading constants: each carries value, unit, node and source, or the file is refused."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from had.errors import HadError
from had.hardware.technology import TABLES, UNITS, Delay, Quantity, Unit, scaling
from had.hardware.yaml_file import Section, read_yaml


def read_node(section: Section, key: str) -> int:
    """Return a node of the scaling table.

    Raises:
        HadError: The node is not in the table.
    """
    node = section.integer(key)
    try:
        scaling(node)
    except HadError as error:
        raise section.error(str(error), key) from error
    return node


def read_choice(section: Section, key: str, known: dict[str, Any]) -> str:
    """Return a value that must be a key of `known`.

    Raises:
        HadError: It is not.
    """
    value = section.text(key)
    if value not in known:
        raise section.error(f"unknown {key} '{value}'; known: {', '.join(known)}", key)
    return value


def read_units(section: Section, key: str, sources: Section | None) -> tuple[tuple[int, Unit], ...]:
    """Return units by operand width in bits, the narrowest first.

    Raises:
        HadError: A width is no number, or a unit is not valid.
    """
    entry = section.section(key)
    widths = sorted((_width(entry, bits), bits) for bits in entry)
    return tuple((width, read_unit(entry, bits, sources)) for width, bits in widths)


def read_unit(section: Section, key: str, sources: Section | None) -> Unit:
    """Return a unit written out in place, or one of `tables/units.yaml` by name.

    Raises:
        HadError: The name is unknown, or a constant lacks value, unit, node or source.
    """
    value = section.get(key)
    if isinstance(value, str):
        return _library_unit(section, key, value)
    return _unit_from(section.section(key), sources)


@lru_cache(maxsize=1)
def _library() -> Section:
    return read_yaml(TABLES / "units.yaml")


def _library_unit(section: Section, key: str, name: str) -> Unit:
    units = _library().section("units")
    if name not in units:
        raise section.error(f"unknown unit '{name}'; known: {', '.join(units)}", key)
    return _unit_from(units.section(name), _library().section("sources"))


def _unit_from(section: Section, sources: Section | None) -> Unit:
    section.only(["area", "energy", "power", "delay", "interval"])
    if ("energy" in section) == ("power" in section):
        raise section.error("a unit needs either 'energy' or 'power'")
    delay = _delay(section, "delay") if "delay" in section else Delay(1)
    return Unit(
        area=_quantity(section, "area", sources),
        energy=_quantity(section, "energy", sources) if "energy" in section else None,
        power=_quantity(section, "power", sources) if "power" in section else None,
        delay=delay,
        interval=_delay(section, "interval") if "interval" in section else delay,
    )


def _delay(section: Section, key: str) -> Delay:
    if not isinstance(section.get(key), Section):
        return Delay(section.number(key))
    entry = section.section(key)
    entry.only(["base", "per_row"])
    return Delay(entry.number("base"), entry.number("per_row"))


def _quantity(section: Section, kind: str, sources: Section | None) -> Quantity:
    entry = section.section(kind)
    entry.only(["value", "unit", "node_nm", "source"])
    source = entry.text("source")
    if sources is not None and source in sources:
        source = sources.text(source)
    return Quantity(
        kind=kind,
        value=entry.number("value"),
        unit=read_choice(entry, "unit", UNITS[kind]),
        node_nm=read_node(entry, "node_nm"),
        source=source,
    )


def _width(section: Section, key: str) -> int:
    if not key.isdigit() or int(key) < 1:
        raise section.error(f"units are listed by bits, found '{key}'", key)
    return int(key)
