"""Sigma and bits of the students, by layer and head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from had.results.report.charts import INK, color, drawing, legend_below, marker, whole_ticks
from had.results.report.elements import Element, Figure, Section, Table, Text
from had.results.report.heads import STUCK, Inspection, LayerHeads
from had.results.report.runs import Group, slug

ROLES = ("query", "key")


def heads(groups: Sequence[Group], inspections: Mapping[str, Inspection]) -> Section:
    """Two figures and a table for every condition whose student could be looked at.

    Args:
        groups: all conditions.
        inspections: students by the name of their group.
    """
    elements: list[Element] = []
    for group in groups:
        if (found := inspections.get(group.name)) is not None:
            elements += _shown(group, found)
    if missing := [group.name for group in groups if group.name not in inspections]:
        elements.append(
            Text(f"Students that were not looked at or are not at hand: {'; '.join(missing)}.")
        )
    return Section("heads", "Sigma and bits by head", elements)


def _shown(group: Group, found: Inspection) -> list[Element]:
    figures = [_sigmas(group, found)] if any(layer.sigma for layer in found.layers) else []
    if found.tokens:
        figures.append(_bits(group, found))
    note = f"{group.name}: no bits were counted. {found.problem}"
    notes = [] if found.tokens else [Text(note)]
    return [*figures, *notes, _table(group, found)]


def _sigmas(group: Group, found: Inspection) -> Figure:
    with drawing(height=2.9) as sheet:
        (axis,) = sheet.axes
        for index, role in enumerate(ROLES):
            points = [
                (place + 0.16 * (index - 0.5), sigma)
                for place, layer in enumerate(found.layers)
                for sigma in layer.sigma.get(role, ())
            ]
            axis.plot(*zip(*points, strict=True), marker(index), color=color(index), markersize=4)
            axis.plot([], [], marker(index), color=color(index), label=f"sigma of a {role}")
        axis.set(xlabel="layer", ylabel="sigma, in units of queries and keys")
        axis.set_ylim(bottom=0)
        axis.set_xlim(-0.5, len(found.layers) - 0.5)
        whole_ticks(axis)
        legend_below(axis)
    shared = all(len(each) == 1 for layer in found.layers for each in layer.sigma.values())
    which = "one for all heads of a layer" if shared else "a mark a head"
    return Figure(
        f"sigma-{slug(group.name)}",
        sheet.svg,
        f"Sigma of queries and keys in {len(found.layers)} layers; the table has the numbers.",
        f"{group.name}: the magnitudes that signs are multiplied with, {which}, in units of the "
        f"model's queries and keys. Seed {group.runs[0].record['seed']}.",
    )


def _bits(group: Group, found: Inspection) -> Figure:
    rows = sum(len(layer.bits["query"].ones) for layer in found.layers)
    with drawing(height=min(7.0, 1.5 + 0.13 * rows), columns=2) as sheet:
        for axis, role in zip(sheet.axes, ROLES, strict=True):
            ones = [row for layer in found.layers for row in layer.bits[role].ones]
            # Nothing but 0, 1/2 and 1 has a colour of its own: balanced bits are white.
            image = axis.imshow(
                ones, cmap="PuOr", vmin=0, vmax=1, aspect="auto", interpolation="nearest"
            )
            first = 0
            for layer in found.layers[:-1]:
                first += len(layer.bits[role].ones)
                axis.axhline(first - 0.5, color=INK, linewidth=0.6)
            axis.set(xlabel="bit of the head", title=role)
            _layer_ticks(axis, [len(layer.bits[role].ones) for layer in found.layers])
        sheet.axes[0].set_ylabel("layer, a row a head")
        sheet.figure.colorbar(image, ax=sheet.axes, label="share of ones", shrink=0.9)
    return Figure(
        f"bits-{slug(group.name)}",
        sheet.svg,
        f"Heat maps of the share of ones of every bit of {rows} heads; the table sums them up.",
        f"{group.name}: the share of tokens in which a bit is 1, by layer, head and bit: 0.5 (no "
        f"colour) tells most, 0 and 1 nothing. Counted on {found.tokens} evaluation tokens.",
    )


def _layer_ticks(axis: object, heads: Sequence[int]) -> None:
    """A tick in the middle of each layer's rows; of many layers, of some."""
    middles, first = [], 0
    for count in heads:
        middles.append(first + (count - 1) / 2)
        first += count
    every = max(1, len(heads) // 12)
    names = [str(layer) for layer in range(len(heads))]
    axis.set_yticks(middles[::every], names[::every])  # type: ignore[attr-defined]


def _table(group: Group, found: Inspection) -> Table:
    headers = ["layer", "head", "sigma query", "sigma key"]
    if found.tokens:
        headers += [f"{what}, {role}" for role in ROLES for what in _BITS]
    rows = [
        [str(place), str(head), *_sigma_cells(layer, head), *_bit_cells(layer, head)]
        for place, layer in enumerate(found.layers)
        for head in range(_count(layer))
    ]
    counted = (
        "Ones: mean share of ones. Entropy: mean over bits, each for itself, in bits. Stuck: bits "
        f"that are the same in more than {1 - STUCK:.0%} of the tokens."
    )
    text = f"{group.name}. {counted if found.tokens else ''}".rstrip()
    return Table(headers, rows, text, folded=f"{group.name}: every head in numbers")


_BITS = ("ones", "entropy", "stuck")


def _count(layer: LayerHeads) -> int:
    """Rows of a layer: its query heads, or as many as there are sigmas."""
    if layer.bits:
        return len(layer.bits["query"].ones)
    return max((len(each) for each in layer.sigma.values()), default=1)


def _sigma_cells(layer: LayerHeads, head: int) -> list[str]:
    return [_picked(layer.sigma.get(role, ()), head) for role in ROLES]


def _picked(values: Sequence[float], head: int) -> str:
    """A head's own value, the shared one, or nothing where there is none."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{values[head]:.3f}" if head < len(values) else ""


def _bit_cells(layer: LayerHeads, head: int) -> list[str]:
    """Nothing for a query head beyond the last key head, where they share keys."""
    cells = []
    for bits in (layer.bits[role] for role in ROLES if role in layer.bits):
        if head < len(bits.ones):
            cells += [
                f"{bits.share(head):.3f}",
                f"{bits.entropy(head):.3f}",
                str(bits.stuck(head)),
            ]
        else:
            cells += [""] * len(_BITS)
    return cells
