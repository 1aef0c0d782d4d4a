"""Tables with their captions, by the names that the command line gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from had.errors import HadError
from had.results.depths import depth_rows, has_places
from had.results.measures import Measure, by_measure, unit_of
from had.results.records import Record
from had.results.statistics import rows_of
from had.results.views import Rows, common_overrides, long_rows, together, wide_rows


@dataclass(frozen=True)
class View:
    """A way to show records that have one measure.

    Attributes:
        rows: headers and cells.
        fits: whether a record has what is shown.
        caption: what they are, with {unit}, {heading}, {against} and {definition} of the measure.
    """

    rows: Callable[[Sequence[Record]], Rows]
    caption: str
    fits: Callable[[Record], bool] = lambda record: True


@dataclass(frozen=True)
class Shown:
    """A table with what there is to say of it."""

    rows: Rows
    caption: str


_BRACKETS = (
    "Student's score in {unit} and, in brackets, its {heading} {against} the teacher of the same "
    "run, mean ± standard deviation over seeds."
)
VIEWS = {
    "task": View(
        long_rows,
        "Scores in {unit}, mean ± standard deviation over seeds; {heading} = {definition} of the "
        "same run.",
    ),
    "recipe": View(
        wide_rows,
        f"{_BRACKETS} Mean {{heading}}: over tasks, ± its standard error from the seeds.",
    ),
    "depth": View(
        depth_rows,
        f"{_BRACKETS} Depth: the share of the text, of so many tokens, before the hidden fact.",
        has_places,
    ),
}


def tables(view: str, records: Iterable[Record]) -> list[Shown]:
    """Records as one table for each measure they have: points and ratios share no mean.

    Raises:
        HadError: no record has what the view shows.
    """
    chosen = VIEWS[view]
    groups = by_measure(record for record in records if chosen.fits(record))
    if not groups:
        raise HadError(f"--by {view}: no record holds what it shows")
    return [
        Shown(chosen.rows(own), _caption(chosen, measure, own)) for measure, own in groups.items()
    ]


def _caption(view: View, measure: Measure, records: Sequence[Record]) -> str:
    """What a table shows, with what settings, and where it was measured."""
    text = view.caption.format(**vars(measure) | {"unit": unit_of(measure, records)})
    devices = ", ".join(sorted({str(record["device"]) for record in records}))
    common = together(sorted(common_overrides(rows_of(records))))
    settings = f" All with {', '.join(f'`{each}`' for each in common)}." if common else ""
    return f"{text}{_chance(records)}{settings} {devices}."


def _chance(records: Sequence[Record]) -> str:
    """What guessing gives, where it was recorded."""
    found = {r["task"]: 100 * r["student/chance"] for r in records if "student/chance" in r}
    if not found:
        return ""
    return f" Guessing gives {', '.join(f'{v:g} on {task}' for task, v in sorted(found.items()))}."
