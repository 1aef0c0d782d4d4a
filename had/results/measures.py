"""What scores mean: points that a student loses, or a perplexity that it has more of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from had.results.records import Record

METRIC = "metric"  # of a record: what its scores are; none in older ones


@dataclass(frozen=True)
class Measure:
    """How scores are compared and shown. Whatever it is, a larger gap is worse.

    Attributes:
        key: of records, for the gap between a student and the teacher of the same run.
        heading: of a column of gaps.
        equal: the gap of a student that is as good as its teacher.
        digits: after the decimal point, of scores and gaps.
        axis: label of an axis of gaps, with {metric} where it names the score.
        unit: of scores, in captions; with {metric} likewise.
        against: "its <heading> <against> the teacher", in captions.
        definition: of a gap, in captions.
    """

    key: str
    heading: str
    equal: float
    digits: int
    axis: str
    unit: str
    against: str
    definition: str

    def text(self, value: float, spread: float | None = None) -> str:
        """A score or a gap as it is shown: "71.00 ± 1.41"."""
        shown = f"{value:.{self.digits}f}"
        return shown if spread is None else f"{shown} ± {spread:.{self.digits}f}"


POINTS = Measure(
    key="score/drop",
    heading="drop",
    equal=0.0,
    digits=2,
    axis="drop below the teacher, points of 100",
    unit="points of 100",
    against="below",
    definition="teacher - student",
)
RATIO = Measure(
    key="score/ratio",
    heading="ratio",
    equal=1.0,
    digits=3,
    axis="{metric} over the teacher's",
    unit="{metric} (lower is better)",
    against="to",
    definition="student / teacher",
)
MEASURES = (POINTS, RATIO)
"""In the order of tables."""
_ORDINARY = {POINTS: "score", RATIO: "perplexity"}


def measure_of(record: Record) -> Measure:
    """A record that has a ratio means it: its drop is the same in percent."""
    return RATIO if RATIO.key in record else POINTS


def by_measure(records: Iterable[Record]) -> dict[Measure, list[Record]]:
    """Records that may stand in one table, in the order of tables."""
    records = list(records)
    groups = {each: [r for r in records if measure_of(r) is each] for each in MEASURES}
    return {measure: group for measure, group in groups.items() if group}


def axis_label(measure: Measure, records: Sequence[Record]) -> str:
    """The label of an axis of these records' gaps."""
    return measure.axis.format(metric=_metrics(measure, records))


def unit_of(measure: Measure, records: Sequence[Record]) -> str:
    """What these records' scores are counted in."""
    return measure.unit.format(metric=_metrics(measure, records))


def _metrics(measure: Measure, records: Sequence[Record]) -> str:
    """What the scores of these records are: "perplexity", "bits_per_byte, perplexity"."""
    names = {str(record.get(METRIC, _ORDINARY[measure])) for record in records}
    return ", ".join(sorted(names))
