"""Accelerators from YAML: one file describes one, and a mistake is named with file and line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, get_type_hints

from had.errors import HadError
from had.hardware.accelerator import INTERVALS, Operation, PipelineAccelerator, Stage
from had.hardware.components import COMPONENTS, Component, Tiling
from had.hardware.costs import CostReport
from had.hardware.published import PublishedDesign
from had.hardware.roofline import RooflineDevice
from had.hardware.technology import TABLES
from had.hardware.unit_file import read_choice, read_node, read_unit, read_units
from had.hardware.workload import AttentionWorkload
from had.hardware.yaml_file import Section, read_yaml

PIPELINE_KEYS = [
    *("name", "kind", "title", "source", "node_nm", "clock_ghz"),
    *("overlap", "tiling", "operation", "sources", "stages", "components"),
]
SPECS = Path(__file__).parent / "specs"


class Accelerator(Protocol):
    """What every kind of spec becomes."""

    @property
    def name(self) -> str:
        """Name of the spec."""

    def evaluate(self, workload: AttentionWorkload) -> CostReport:
        """Return the cost of a workload."""


def available() -> list[str]:
    """Return the names of the shipped accelerators."""
    return sorted(path.stem for path in SPECS.glob("*.yaml"))


def load_accelerator(name: str | Path) -> Accelerator:
    """Return a shipped accelerator by name, or any other by the path of its YAML.

    Raises:
        HadError: There is no such spec, or it is not valid; the message names file and line.
    """
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"}:
        path = SPECS / f"{name}.yaml"
        if not path.is_file():
            known = ", ".join(available())
            raise HadError(
                f"unknown accelerator '{name}'; known: {known}, or give the path of a YAML file"
            )
    section = read_yaml(path)
    kind = section.text("kind")
    if kind not in KINDS:
        raise section.error(f"unknown kind '{kind}'; known: {', '.join(KINDS)}", "kind")
    return KINDS[kind](section)


def load_pipeline(name: str | Path) -> PipelineAccelerator:
    """Return an accelerator that is composed of components.

    Raises:
        HadError: As `load_accelerator`, or the spec is of another kind.
    """
    accelerator = load_accelerator(name)
    if not isinstance(accelerator, PipelineAccelerator):
        raise HadError(f"accelerator '{name}' is not composed of components")
    return accelerator


def _pipeline(section: Section) -> PipelineAccelerator:
    section.only(PIPELINE_KEYS)
    section.text("source")
    sources = section.section("sources") if "sources" in section else None
    parts = section.section("components")
    components = tuple(_component(parts.section(name), name, sources) for name in parts)
    stages = _stages(section.section("stages"), {part.name for part in components})
    _check_stages(parts, components, stages)
    operation = _operation(section)
    return PipelineAccelerator(
        name=section.text("name"),
        title=section.text("title"),
        node_nm=read_node(section, "node_nm"),
        clock_ghz=section.number("clock_ghz", 1e-6),
        tiling=_tiling(section.section("tiling")),
        stages=stages,
        overlap=read_choice(section, "overlap", INTERVALS),
        components=components,
        operation=operation,
        beside=_exact_keys() if operation.bits_key == 1 else (),
    )


def _exact_keys() -> tuple[Component, ...]:
    """What one-bit scores need beside them for keys in full precision."""
    parts = read_yaml(TABLES / "exact_keys.yaml")
    return tuple(_component(parts.section(name), name, None) for name in parts)


def _published(section: Section) -> PublishedDesign:
    section.only(["name", "kind", "title", "source", "gops", "gops_per_joule"])
    return PublishedDesign(
        name=section.text("name"),
        title=section.text("title"),
        source=section.text("source"),
        gops=section.number("gops", 1e-9),
        gops_per_joule=section.number("gops_per_joule", 1e-9),
    )


def _roofline(section: Section) -> RooflineDevice:
    numbers = [item.name for item in fields(RooflineDevice) if item.type == "float"]
    section.only(["name", "kind", "title", "operation", *numbers])
    values = {name: _sourced_number(section, name) for name in numbers}
    return RooflineDevice(
        name=section.text("name"),
        title=section.text("title"),
        operation=_operation(section),
        **values,
    )


KINDS: dict[str, Callable[[Section], Accelerator]] = {
    "pipeline": _pipeline,
    "published": _published,
    "roofline": _roofline,
}


def _sourced_number(section: Section, key: str) -> float:
    entry = section.section(key)
    entry.only(["value", "unit", "source"])
    entry.text("source")
    entry.text("unit")
    return entry.number("value", 1e-9)


def _tiling(section: Section) -> Tiling:
    section.only(["rows", "columns"])
    return Tiling(section.integer("rows"), section.integer("columns"))


def _operation(section: Section) -> Operation:
    if "operation" not in section:
        return Operation()
    entry = section.section("operation")
    bits = ["bits_query", "bits_key", "bits_value"]
    entry.only(["dense", *bits])
    return Operation(
        dense="dense" in entry and entry.boolean("dense"),
        **{name: entry.integer(name) for name in bits if name in entry},
    )


def _stages(section: Section, names: set[str]) -> tuple[Stage, ...]:
    return tuple(Stage(name, _phases(section, name, names)) for name in section)


def _phases(section: Section, stage: str, names: set[str]) -> tuple[tuple[str, ...], ...]:
    phases = section.items(stage)
    for phase in phases:
        if not isinstance(phase, list) or not phase:
            raise section.error(f"stage '{stage}' must be a list of lists of components", stage)
        for name in phase:
            if name not in names:
                raise section.error(f"stage '{stage}' names no component '{name}'", stage)
    return tuple(tuple(phase) for phase in phases)


def _check_stages(
    parts: Section, components: tuple[Component, ...], stages: tuple[Stage, ...]
) -> None:
    names = [stage.name for stage in stages]
    for part in components:
        if part.stage not in names:
            section = parts.section(part.name)
            raise section.error(f"unknown stage '{part.stage}'; known: {', '.join(names)}", "stage")


def _component(section: Section, name: str, sources: Section | None) -> Component:
    kind = section.text("kind")
    if kind not in COMPONENTS:
        known = ", ".join(sorted(COMPONENTS))
        raise section.error(f"unknown component '{kind}'; known: {known}", "kind")
    cls = COMPONENTS[kind]
    members = {item.name: item for item in fields(cls) if item.name not in {"name", "unit"}}
    readable = set(members) - ({"unit"} if "units" in members else set())
    section.only({"kind", *readable, "units" if "units" in members else "unit"})
    values = {
        key: _field(section, key, item, cls, sources)
        for key, item in members.items()
        if key in section or item.default is MISSING
    }
    unit = values["units"][-1][1] if "units" in values else read_unit(section, "unit", sources)
    return cls(name=name, unit=unit, **values)


def _field(
    section: Section, key: str, item: Field[Any], cls: type[Component], sources: Section | None
) -> Any:
    readers: dict[Any, Callable[[], Any]] = {
        int: lambda: section.integer(key),
        float: lambda: section.number(key),
        str: lambda: section.text(key),
    }
    return readers.get(_hints(cls)[key], lambda: read_units(section, key, sources))()


@lru_cache
def _hints(cls: type[Component]) -> dict[str, Any]:
    """The types of a component's fields; resolving them takes longer than reading a spec."""
    return get_type_hints(cls)
