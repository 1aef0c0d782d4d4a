"""The generated parts of docs/hardware.md, each a function that returns Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from had.hardware.accelerator import PipelineAccelerator
from had.hardware.components import expected_recall
from had.hardware.cost import compare
from had.hardware.ledgers import (
    LedgerRow,
    camformer_rows,
    camformer_workload,
    had_cam_rows,
    published,
    zigzag_rows,
)
from had.hardware.model import ModelGeometry
from had.hardware.reduction import Reduction, reduction
from had.hardware.report import breakdown_rows, comparison_rows, number
from had.hardware.sensitivity import paper_workload, sensitivity
from had.hardware.spec import available, load_accelerator, load_pipeline
from had.hardware.technology import Quantity, Unit
from had.hardware.workload import AttentionWorkload

DESIGNS = ("had_digital", "camformer", "had_cam")
LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)
AREA, POWER = "area saved, %", "power saved, %"


def savings_by_length() -> dict[str, tuple[Sequence[int], dict[str, list[float]]]]:
    """Return the savings of the two consistent designs at each of `LENGTHS`."""
    baseline = load_pipeline("standard")
    curves: dict[str, tuple[Sequence[int], dict[str, list[float]]]] = {}
    for name in DESIGNS[:2]:
        design = load_pipeline(name)
        found = [reduction(design, baseline, paper_workload(keys)) for keys in LENGTHS]
        curves[name] = (
            LENGTHS,
            {
                AREA: [one.area_percent for one in found],
                POWER: [one.power_percent for one in found],
            },
        )
    return curves


# What a user can ask, and the command that answers; `had cost --help` lists the flags.
COMMANDS = {
    "one design, by component": "had cost model=bert task=glue/sst2 hardware=camformer",
    "several designs": f"had cost model=bert task=glue/sst2 --compare standard,{','.join(DESIGNS)}",
    "against context length": "had cost model=bert task=glue/sst2 --sweep n=128..65536",
    "against the keys kept": "had cost model=bert task=glue/sst2 --sweep topn=8..512",
    "one decoding step": "had cost model=bert task=glue/sst2 --context 4096 --query-length 1",
    "for programs": "had cost model=bert task=glue/sst2 --json",
    "PNG and SVG": "had cost model=bert task=glue/sst2 --plots plots",
    "accuracy against energy": "had cost hardware=camformer --plots plots --records outputs/run",
}


def _commands() -> str:
    rows = [[what, f"`{command}`"] for what, command in COMMANDS.items()]
    return _table(["to see", "run"], rows)


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _ledger(rows: list[LedgerRow], name: str) -> str:
    cells = [
        [row.label, number(row.published), number(row.model), f"{row.deviation_percent:+.2f} %"]
        for row in rows
    ]
    source = published(name).text("source")
    return f"Printed: {source}.\n\n" + _table(["", "printed", "model", "deviation"], cells)


def _camformer() -> str:
    return _ledger(camformer_rows(), "camformer")


def _camformer_breakdown() -> str:
    return _table(*breakdown_rows(load_pipeline("camformer").evaluate(camformer_workload())))


def _had_cam() -> str:
    return _ledger(had_cam_rows(), "had_cam")


def _zigzag() -> str:
    return _ledger(zigzag_rows(), "zigzag")


def _recall() -> str:
    cases = [(16, kept) for kept in (8, 16, 24, 32)] + [(rows, 32) for rows in (4, 8, 32)]
    rows = [
        [str(tile), str(kept), f"{100 * expected_recall(1024, tile, 2, kept):.2f}"]
        for tile, kept in cases
    ]
    return _table(["rows of a tile", "kept", "expected recall, %"], rows)


def _compare(workload: AttentionWorkload, names: Sequence[str]) -> str:
    reports = compare(workload, list(names))
    notes = [f"- {one.accelerator}: {note}" for one in reports for note in one.notes]
    table = _table(*comparison_rows(reports))
    return "\n".join([f"{workload.name}. `*` marks published figures.", "", table, "", *notes])


def _encoder() -> str:
    workload = ModelGeometry(12, 12, 64, name="BERT-base, 128 tokens, N = 30").workload(128, 30)
    names = ["standard", "int8", "had_digital", "had_cam", "camformer", "h200", "spatten"]
    return _compare(workload, names)


def _decode() -> str:
    geometry = ModelGeometry(
        32, 32, 128, kv_heads=8, name="One decoding step, 32 layers, 32/8 heads of 128, 32768 keys"
    )
    workload = geometry.workload(32768, 512, query_length=1)
    return _compare(workload, ["standard", "int8", "had_digital", "h200", "h200_packed"])


def _published() -> str:
    return _compare(camformer_workload(), ["mnnfast", "a3", "spatten", "camformer"])


def _reduction() -> str:
    baseline, paper = load_pipeline("standard"), published("paper").section("values")
    area, power = paper.number(AREA), paper.number(POWER)
    rows = [["paper", number(area), number(power), "", ""]]
    for name in DESIGNS:
        found = reduction(load_pipeline(name), baseline, paper_workload())
        gaps = (found.area_percent - area, found.power_percent - power)
        rows.append([name, *_percentages(found), *(f"{gap:+.1f}" for gap in gaps)])
    return f"{paper_workload().name}, 45 nm, against `standard`.\n\n" + _table(
        ["design", AREA, POWER, "area gap, points", "power gap, points"], rows
    )


def _sensitivity() -> str:
    baseline = load_pipeline("standard")
    studies = [sensitivity(load_pipeline(name), baseline) for name in DESIGNS[:2]]
    rows = [
        [first[0], *_percentages(first[1]), *_percentages(second[1])]
        for first, second in zip(*studies, strict=True)
    ]
    headers = [f"{name}: {what}" for name in DESIGNS[:2] for what in (AREA, POWER)]
    return _table(["", *headers], rows)


def _percentages(found: Reduction) -> list[str]:
    return [f"{found.area_percent:.1f}", f"{found.power_percent:.1f}"]


def _sources() -> str:
    loaded = [load_accelerator(name) for name in available()]
    designs = [one for one in loaded if isinstance(one, PipelineAccelerator)]
    rows = [
        [design.name, part.name, *cells]
        for design in designs
        for part in design.components
        for cells in _unit_cells(part.unit)
    ]
    return _table(["accelerator", "component", "constant", "node, nm", "source"], rows)


def _unit_cells(unit: Unit) -> list[list[str]]:
    quantities = [one for one in (unit.area, unit.energy, unit.power) if one is not None]
    return [_quantity_cells(one) for one in quantities]


def _quantity_cells(one: Quantity) -> list[str]:
    return [f"{one.kind} {number(one.value)} {one.unit}", str(one.node_nm), one.source]


PARTS: dict[str, Callable[[], str]] = {
    "camformer": _camformer,
    "camformer_breakdown": _camformer_breakdown,
    "commands": _commands,
    "decode": _decode,
    "encoder": _encoder,
    "had_cam": _had_cam,
    "published": _published,
    "recall": _recall,
    "reduction": _reduction,
    "sensitivity": _sensitivity,
    "sources": _sources,
    "zigzag": _zigzag,
}
