"""Reports for people and programs: Rich tables and plain dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from had.hardware.cost import LABELS, SweepPoint
from had.hardware.costs import CostReport

if TYPE_CHECKING:
    from rich.table import Table

# Column title, quantity and digits of the comparison.
COLUMNS: tuple[tuple[str, str], ...] = (
    ("energy/query nJ", "energy_per_query_nj"),
    ("on chip nJ", "onchip_energy_per_query_nj"),
    ("area mm2", "area_mm2"),
    ("power W", "power_w"),
    ("latency us", "latency_us"),
    ("queries/ms", "queries_per_ms"),
    ("queries/mJ", "queries_per_mj"),
)
RATIOS: tuple[tuple[str, str], ...] = (
    ("energy ratio", "energy_ratio"),
    ("area ratio", "area_ratio"),
    ("latency ratio", "latency_ratio"),
)


def as_dict(report: CostReport) -> dict[str, Any]:
    """Return a report with its components and stages, ready for JSON."""
    return {
        "accelerator": report.accelerator,
        "title": report.title,
        "published": report.published,
        "node_nm": report.node_nm,
        "workload": report.workload.name,
        "quantities": report.quantities(),
        "stages_cycles": {stage.name: stage.cycles for stage in report.stages},
        "components": [
            {
                "name": part.name,
                "stage": part.stage,
                "energy_pj": part.energy_pj,
                "area_um2": part.area_um2,
                "traffic_bits": part.traffic_bits,
                "on_chip": part.on_chip,
            }
            for part in report.components
        ],
        "notes": list(report.notes),
    }


def comparison_rows(
    reports: Sequence[CostReport], baseline: str | CostReport = "standard"
) -> tuple[list[str], list[list[str]]]:
    """Return headers and cells of a comparison; published figures carry an asterisk.

    Ratios are to `baseline`, a report or the name of one; they are left out where no report has
    that name.
    """
    base = _baseline(reports, baseline)
    columns = COLUMNS + (RATIOS if base else ())
    rows = []
    for report in reports:
        figures = report.quantities() | (report.ratios(base) if base else {})
        rows.append([_starred(report), *(number(figures.get(key)) for _, key in columns)])
    return ["accelerator", *(title for title, _ in columns)], rows


def comparison_table(
    reports: Sequence[CostReport], baseline: str | CostReport = "standard"
) -> Table:
    """Return a Rich table of several reports, with what must be known about them below it."""
    headers, rows = comparison_rows(reports, baseline)
    base = _baseline(reports, baseline)
    ratios = [f"ratios are to {base.accelerator}, energy on chip"] if base else []
    notes = [f"{one.accelerator}: {note}" for one in reports for note in one.notes]
    caption = "\n".join(_footnote(reports) + ratios + notes)
    return _table(reports[0].workload.name, headers, rows, caption=caption)


def breakdown_rows(report: CostReport) -> tuple[list[str], list[list[str]]]:
    """Return headers and cells of one report by component, the sum last."""
    queries = report.workload.queries
    rows = [
        [
            part.stage,
            part.name,
            number(part.energy_pj / queries / 1e3),
            number(100 * part.energy_pj / report.energy_pj),
            number(part.area_um2 if report.area_known else None),
            number(part.traffic_bits / queries / 8),
        ]
        for part in report.components
    ]
    area = number(report.area_mm2 * 1e6 if report.area_known else None)
    total = [number(report.energy_per_query_nj), "100", area, ""]
    headers = ["stage", "component", "nJ/query", "% of energy", "um2", "bytes/query"]
    return headers, [*rows, ["", "total", *total]]


def breakdown_table(report: CostReport) -> Table:
    """Return a Rich table of one report by component."""
    headers, rows = breakdown_rows(report)
    caption = "\n".join([*_footnote([report]), *report.notes])
    return _table(f"{_starred(report)}: {report.title}", headers, rows, caption=caption)


def totals_table(report: CostReport, baseline: CostReport) -> Table:
    """Return a Rich table of all figures of one report, with its ratios to another below them."""
    ratios = report.ratios(baseline).items()
    over = {f"{name} to {baseline.accelerator}": ratio for name, ratio in ratios}
    figures = report.quantities() | over
    rows = [[name.replace("_", " "), number(value)] for name, value in figures.items()]
    return _table(report.workload.name, ["quantity", _starred(report)], rows, caption="")


def sweep_table(points: Sequence[SweepPoint], quantity: str = "energy_per_query_nj") -> Table:
    """Return a Rich table of one quantity, values of the knob down and accelerators across."""
    names = [_starred(report) for report in points[0].reports]
    rows = [
        [str(point.value), *(number(one.quantities().get(quantity)) for one in point.reports)]
        for point in points
    ]
    caption = "\n".join(_footnote(points[0].reports))
    title = {name: title for title, name in COLUMNS}.get(quantity, quantity)
    return _table(title, [LABELS[points[0].parameter], *names], rows, caption=caption)


def _baseline(reports: Sequence[CostReport], baseline: str | CostReport) -> CostReport | None:
    if isinstance(baseline, CostReport):
        return baseline
    return next((one for one in reports if one.accelerator == baseline), None)


def _starred(report: CostReport) -> str:
    return report.accelerator + (" *" if report.published else "")


def _footnote(reports: Sequence[CostReport]) -> list[str]:
    published = any(report.published for report in reports)
    return ["* published figures, not modelled here"] if published else []


def number(value: float | None) -> str:
    """Return four significant digits without an exponent, or a dash for what is unknown."""
    if value is None:
        return "-"
    digits = f"{value:.4g}"
    return digits if "e" not in digits else (f"{value:,.0f}" if abs(value) >= 1 else digits)


def _table(title: str, headers: list[str], rows: list[list[str]], *, caption: str) -> Table:
    from rich.table import Table

    table = Table(title=title or None, caption=caption or None, caption_justify="left")
    for index, header in enumerate(headers):
        table.add_column(header, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    return table
