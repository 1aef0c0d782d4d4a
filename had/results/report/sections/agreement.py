"""How closely students attend like their teachers, layer by layer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from had.results.records import Record
from had.results.report.charts import drawing, legend_below, series, whole_ticks
from had.results.report.elements import Element, Figure, Section, Table, Text
from had.results.report.runs import Group, Run
from had.results.statistics import Estimate

_KEY = re.compile(r"attention/(\d+)/kl_nats")
_WHAT = (
    "KL(teacher row || student row) over all allowed keys, before the top-N, in nats: the mean "
    "over heads and real query rows of the first evaluation batches"
)


def agreement(runs: Sequence[Run], groups: Sequence[Group]) -> Section:
    """Divergence by layer, a line for every condition."""
    by_group = {group.name: _by_layer(group) for group in groups}
    by_group = {name: layers for name, layers in by_group.items() if layers}
    elements: list[Element] = [_figure(by_group), _table(by_group)] if by_group else []
    if missing := sum(not _divergences(run.record) for run in runs):
        elements.append(
            Text(f"{missing} of {len(runs)} records are older than this figure and lack it.")
        )
    return Section("agreement", "Attention agreement by layer", elements)


def _divergences(record: Record) -> dict[int, float]:
    found = ((_KEY.fullmatch(key), value) for key, value in record.items())
    return {int(match[1]): value for match, value in found if match}


def _by_layer(group: Group) -> dict[int, Estimate]:
    """Mean and deviation over the seeds that have it, by layer."""
    seen = [found for run in group.runs if (found := _divergences(run.record))]
    layers = sorted({layer for found in seen for layer in found})
    return {layer: Estimate.of([f[layer] for f in seen if layer in f]) for layer in layers}


def _figure(by_group: dict[str, dict[int, Estimate]]) -> Figure:
    with drawing(height=2.9 + 0.12 * sum(1 + len(name) // 34 for name in by_group)) as sheet:
        (axis,) = sheet.axes
        for index, (name, layers) in enumerate(by_group.items()):
            aside = 0.06 * (index - (len(by_group) - 1) / 2)  # bars side by side
            places = [layer + aside for layer in layers]
            means = [each.mean for each in layers.values()]
            deviations = [each.deviation for each in layers.values()]
            series(axis, index, name, (places, means), deviations)
        axis.set(xlabel="layer", ylabel="KL(teacher || student), nats")
        axis.set_ylim(bottom=0)
        whole_ticks(axis)
        legend_below(axis)
    return Figure(
        "agreement",
        sheet.svg,
        f"Divergence by layer of {', '.join(by_group)}; the table has the numbers.",
        f"{_WHAT}; 0 is full agreement. Bars: ± one standard deviation over seeds.",
    )


def _table(by_group: dict[str, dict[int, Estimate]]) -> Table:
    layers = sorted({layer for found in by_group.values() for layer in found})
    rows = []
    for name, found in by_group.items():
        cells = [_cell(found[layer]) if layer in found else "" for layer in layers]
        rows.append([name, *cells])
    headers = ["student", *(f"layer {layer}" for layer in layers)]
    return Table(headers, rows, f"{_WHAT}, ± standard deviation over seeds.")


def _cell(estimate: Estimate) -> str:
    spread = "" if estimate.deviation is None else f" ± {estimate.deviation:.3f}"
    return f"{estimate.mean:.3f}{spread}"
