"""Figures as SVG text: small, deterministic, their text left as text."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import nan
from typing import TYPE_CHECKING, Any

from had.errors import HadError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 5.2  # inches; at 9 points, text is readable on the screen of a phone, too
INK = "#1b1f24"  # of text and axes: renderers exchange it for the colour of the page's text
# Distinct for most colour-blind people, and in sight on white and on black.
COLORS = ("#3b82c4", "#dd7733", "#2f9e77", "#b565a7", "#b08d1e", "#6d7bd6", "#8b8f98", "#c0504d")
MARKERS = "osD^vPX*"
_FADED = "#8b8f98"
_STYLE: Any = {
    "svg.hashsalt": "had",  # the same numbers give the same file
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "image.composite_image": False,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    ),
}


def color(index: int) -> str:
    """The colour of the series with this number."""
    return COLORS[index % len(COLORS)]


def marker(index: int) -> str:
    """Its marker."""
    return MARKERS[index % len(MARKERS)]


class Drawing:
    """A figure that becomes SVG text.

    Attributes:
        figure: of matplotlib.
        axes: from top to bottom, and from left to right.
        svg: the text, once the block of `drawing` has ended.
    """

    def __init__(self, figure: Figure, axes: Sequence[Axes]) -> None:
        self.figure, self.axes = figure, axes
        self.svg = ""


@contextmanager
def drawing(height: float, rows: int = 1, columns: int = 1, **subplots: Any) -> Iterator[Drawing]:
    """A figure of some height in inches, drawn inside a with block.

    Raises:
        HadError: matplotlib is missing.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise HadError("reports need matplotlib: pip install 'had[plots]'") from error
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **subplots)
        sheet = Drawing(figure, list(axes.flat))
        yield sheet
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
        sheet.svg = _tidy(text.getvalue())


def _tidy(svg: str) -> str:
    """Without what only a file of its own needs: prologue, metadata, rules for all elements."""
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    return svg[svg.index("<svg") :].strip() + "\n"


def mark_stages(axis: Axes, starts: Sequence[int], names: Sequence[str], end: int) -> None:
    """Lines where stages begin, and their names above the axis."""
    shares = [(b - a) / max(1, end) for a, b in zip(starts, [*starts[1:], end], strict=True)]
    # An inch holds some 14 letters of this size; the axes are about 4.4 inches wide.
    narrow = any(len(name) > 60 * share for name, share in zip(names, shares, strict=True))
    for index, (start, name) in enumerate(zip(starts, names, strict=True)):
        axis.annotate(
            name,
            (start, 1),
            xycoords=("data", "axes fraction"),
            xytext=(2, 2),
            textcoords="offset points",
            rotation=35 if narrow else 0,
            fontsize=8,
        )
        if index:
            mark_border(axis, start)
    mark_border(axis, starts[0])


def mark_border(axis: Axes, step: int) -> None:
    """A line where a stage begins."""
    axis.axvline(step, color=_FADED, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)


def log_ticks(axis: Axes, side: str) -> None:
    """A logarithmic scale with plain numbers, few enough to stand beside each other.

    Args:
        axis: with everything drawn that decides its range.
        side: "x" or "y".
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set(**{f"{side}scale": "log"})
    scale = {"x": axis.xaxis, "y": axis.yaxis}[side]
    low, high = scale.get_view_interval()
    steps = (1, 2, 5) if high / low < 300 else (1,)
    scale.set_major_locator(LogLocator(subs=steps))
    scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    scale.set_minor_formatter(NullFormatter())


def whole_ticks(axis: Axes) -> None:
    """Ticks at whole numbers of the x axis alone."""
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def equal_line(axis: Axes, place: float, *, vertical: bool = False) -> None:
    """Where there is no difference."""
    line = axis.axvline if vertical else axis.axhline
    line(place, color=_FADED, linewidth=0.8, zorder=0)


def legend_below(axis: Axes, columns: int = 2) -> None:
    """A legend that covers nothing, under the axes and their label."""
    figure = axis.figure
    handles, labels = axis.get_legend_handles_labels()
    if labels:
        names = [wrapped(label, 68 // columns) for label in labels]
        figure.legend(handles, names, loc="outside lower center", ncols=columns)


def wrapped(text: str, width: int = 24) -> str:
    """Text in lines of as many letters at most, as far as words allow."""
    return textwrap.fill(text, width, break_long_words=False)


def series(
    axis: Axes,
    index: int,
    name: str,
    points: tuple[Sequence[float], Sequence[float]],
    spreads: Sequence[float | None],
    *,
    spread_of: str = "y",
    line: bool = True,
) -> None:
    """Marks with error bars, of a colour and shape of their own.

    Args:
        axis: drawn on.
        index: of the series in its figure, from 0.
        name: in the legend.
        points: their x and their y.
        spreads: of each point to both sides; None where it is not known: there is no bar.
        spread_of: whether these are of "x" or of "y".
        line: whether one joins the points.
    """
    axis.errorbar(
        *points,
        **{f"{spread_of}err": _bars(spreads)},
        marker=marker(index),
        color=color(index),
        linestyle="-" if line else "none",
        linewidth=1,
        markersize=5,
        capsize=3,
        label=name,
    )


def _bars(spreads: Sequence[float | None]) -> list[float] | None:
    """Lengths of error bars; none where a spread is not known."""
    if not any(spreads):
        return None
    return [nan if spread is None else spread for spread in spreads]
