"""Writes the generated parts of docs/hardware.md: `python -m had.hardware.docs`."""

from __future__ import annotations

from pathlib import Path

from had.hardware.docs_parts import PARTS, savings_by_length
from had.hardware.ledgers import published
from had.pages import DOCS, fill

PAGE = DOCS / "hardware.md"
FIGURE = PAGE.with_name("hardware_reduction.svg")


def main() -> None:
    """Rewrite the page and its figure."""
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    draw_reduction(FIGURE)


def render(page: str) -> str:
    """Return the page with every generated part written anew.

    Raises:
        HadError: The page asks for a part that nobody writes.
    """
    return fill(page, PARTS)


def draw_reduction(path: Path) -> None:
    """Draw the savings of each design against context length, with the paper's two figures."""
    import matplotlib
    from matplotlib.figure import Figure

    paper = published("paper").section("values")
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    curves = savings_by_length()
    for axis, title in zip(axes, ("area saved, %", "power saved, %"), strict=True):
        for name, (lengths, savings) in curves.items():
            axis.plot(lengths, savings[title], marker="o", label=name)
        axis.axhline(paper.number(title), linestyle="--", color="black", label="paper")
        axis.set_xscale("log", base=2)
        axis.set(xlabel="keys", title=title, ylim=(0, 100))
    axes[0].legend()
    # A fixed salt and no date: the same numbers give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "had"}):
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
