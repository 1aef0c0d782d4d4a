"""The functions behind `had cost`: price a workload, compare accelerators, sweep a knob."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from had.errors import HadError
from had.hardware.costs import CostReport
from had.hardware.model import ModelGeometry
from had.hardware.spec import Accelerator, load_accelerator
from had.hardware.workload import AttentionWorkload


@dataclass(frozen=True)
class CostCase:
    """A model at one operating point.

    Attributes:
        geometry: The model.
        context: Keys each query sees.
        n: Keys kept: a count, or a fraction in (0, 1] as a float.
        query_length: Query rows, None for as many as keys; 1 for a decoding step.
        bits: Bits of queries, keys and values.
        minimum: Keys kept at least where `n` is a fraction.
        target: Tokens that a decoder beside an encoder writes, None for as many as keys.
        exact: Keys of a query that are scored in full precision.
    """

    geometry: ModelGeometry
    context: float
    n: int | float
    query_length: float | None = None
    bits: tuple[int, int, int] = (1, 1, 16)
    minimum: int = 1
    target: float | None = None
    exact: int = 0

    def workload(self) -> AttentionWorkload:
        """Return the workload of this case.

        Raises:
            HadError: A number is not positive.
        """
        return self.geometry.workload(
            self.context,
            self.n,
            minimum=self.minimum,
            query_length=self.query_length,
            target=self.target,
            bits=self.bits,
            exact=self.exact,
        )


@dataclass(frozen=True)
class SweepAxis:
    """One knob and its values; `parameter` is a key of `KNOBS`."""

    parameter: str
    values: tuple[int, ...]


@dataclass(frozen=True)
class SweepPoint:
    """The reports of all accelerators at one value of the knob."""

    parameter: str
    value: int
    reports: tuple[CostReport, ...]


# What a sweep calls a knob, and how it is turned.
KNOBS: dict[str, Callable[[CostCase, int], CostCase]] = {
    "n": lambda case, value: replace(case, context=value),
    "topn": lambda case, value: replace(case, n=value),
}
LABELS = {"n": "keys", "topn": "keys kept"}  # what a knob turns, for people


def evaluate(workload: AttentionWorkload, accelerator: str | Path | Accelerator) -> CostReport:
    """Return the cost of a workload on one accelerator.

    Args:
        workload: What to price.
        accelerator: A shipped name, the path of a YAML, or a loaded accelerator.

    Raises:
        HadError: There is no such accelerator, or its spec is not valid.
    """
    if isinstance(accelerator, str | Path):
        accelerator = load_accelerator(accelerator)
    return accelerator.evaluate(workload)


def compare(
    workload: AttentionWorkload, accelerators: Sequence[str | Path | Accelerator]
) -> list[CostReport]:
    """Return the cost of a workload on several accelerators, in their order.

    Raises:
        HadError: None is given, one is unknown, or its spec is not valid.
    """
    if not accelerators:
        raise HadError("name at least one accelerator to compare")
    return [evaluate(workload, accelerator) for accelerator in accelerators]


def cost_metrics(
    workload: AttentionWorkload,
    accelerators: Sequence[str | Path | Accelerator],
    baseline: str | Path | Accelerator = "standard",
) -> dict[str, float]:
    """Return one flat dict of `hw/<accelerator>/<quantity>_<unit>` keys, ratios to `baseline`.

    The baseline is priced for the ratios whether or not it is among the accelerators.

    Raises:
        HadError: An accelerator is unknown, or its spec is not valid.
    """
    base = evaluate(workload, baseline)
    metrics: dict[str, float] = {}
    for accelerator in accelerators:
        metrics |= evaluate(workload, accelerator).flat(base)
    return metrics


def parse_sweep(text: str) -> SweepAxis:
    """Return the axis that `n=128..65536` (doubling) or `topn=8,16,30` (a list) describes.

    `n` is the context length, `topn` the keys kept.

    Raises:
        HadError: The text is not of either form, the knob is unknown, or a value is not positive.
    """
    name, _, values = text.partition("=")
    if name not in KNOBS:
        raise HadError(f"unknown sweep '{text}'; write e.g. n=128..65536 or topn=8,16,30")
    try:
        numbers = _doubling(values) if ".." in values else [int(item) for item in values.split(",")]
    except ValueError as error:
        raise HadError(f"sweep '{text}' needs whole numbers, as 8..512 or 8,16,30") from error
    if not numbers or min(numbers) < 1:
        raise HadError(f"sweep '{text}' needs positive values, the first no larger than the last")
    return SweepAxis(name, tuple(numbers))


def sweep(
    case: CostCase, axis: SweepAxis, accelerators: Sequence[str | Path | Accelerator]
) -> list[SweepPoint]:
    """Return the reports at every value of the axis.

    Raises:
        HadError: As `compare`.
    """
    turn = KNOBS[axis.parameter]
    loaded = [load_accelerator(one) if isinstance(one, str | Path) else one for one in accelerators]
    return [
        SweepPoint(axis.parameter, value, tuple(compare(turn(case, value).workload(), loaded)))
        for value in axis.values
    ]


def _doubling(values: str) -> list[int]:
    first, last = (int(item) for item in values.split(".."))
    if first < 1:
        return [first]
    numbers = []
    while first <= last:
        numbers.append(first)
        first *= 2
    return numbers
