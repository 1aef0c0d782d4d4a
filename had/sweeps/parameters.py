"""What a sweep file may say of one parameter: a few values, or an interval."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from had.config.wording import one_of
from had.errors import HadError

_DIGITS = 6  # significant ones of a number that is drawn
_ROUNDING = 1e-9  # of a step: 0.3 is three times 0.1


class Parameter(Protocol):
    """One parameter of a search; its values are texts as they stand on a command line."""

    def corners(self) -> Sequence[str]:
        """Values that all others lie between, or all there are."""

    def draw(self, generator: random.Random) -> str:
        """A value at random."""

    def suggest(self, trial: Any, key: str) -> str:
        """A value that an `optuna.trial.Trial` chooses."""


@dataclass(frozen=True)
class Choice:
    """A few values.

    Attributes:
        values: at least one.
        weights: how often each is drawn, relative to the others; None: equally often.
    """

    values: tuple[str, ...]
    weights: tuple[float, ...] | None = None

    def corners(self) -> Sequence[str]:
        return self.values

    def draw(self, generator: random.Random) -> str:
        return generator.choices(self.values, self.weights)[0]

    def suggest(self, trial: Any, key: str) -> str:
        chosen: str = trial.suggest_categorical(key, self.values)
        return chosen


@dataclass(frozen=True)
class Interval:
    """Numbers between two ends, both included.

    Attributes:
        low, high: the ends.
        step: between neighbours, of which `high` is one; None: any number.
        logarithmic: whether equal ratios, not equal differences, are equally likely.
        whole: whether the numbers are integers.
    """

    low: float
    high: float
    step: float | None = None
    logarithmic: bool = False
    whole: bool = False

    def corners(self) -> Sequence[str]:
        return self._text(self.low), self._text(self.high)

    def draw(self, generator: random.Random) -> str:
        if self.step is not None:
            count = round((self.high - self.low) / self.step)
            return self._text(self.low + self.step * generator.randint(0, count))
        if self.logarithmic:
            exponent = generator.uniform(math.log(self.low), math.log(self.high))
            return self._text(math.exp(exponent))
        return self._text(generator.uniform(self.low, self.high))

    def suggest(self, trial: Any, key: str) -> str:
        if self.whole:
            step = int(self.step or 1)
            return str(trial.suggest_int(key, int(self.low), int(self.high), step=step))
        number = trial.suggest_float(key, self.low, self.high, step=self.step, log=self.logarithmic)
        return self._text(number)

    def _text(self, number: float) -> str:
        if self.whole:
            return str(round(number))
        return repr(float(f"{number:.{_DIGITS}g}"))


def _int_uniform(low: Any, high: Any, q: Any) -> Interval:
    if not all(isinstance(number, int) for number in (low, high, q or 1)):
        raise HadError(f"min={low}, max={high}, q={q}: int_uniform takes integers alone")
    return _stepped(low, high, q or 1, whole=True)


def _uniform(low: Any, high: Any, q: Any) -> Interval:
    return Interval(low, high)


def _q_uniform(low: Any, high: Any, q: Any) -> Interval:
    return _stepped(low, high, q or 1, whole=False)


def _log_uniform_values(low: Any, high: Any, q: Any) -> Interval:
    return Interval(low, high, logarithmic=True)


def _stepped(low: Any, high: Any, step: Any, whole: bool) -> Interval:
    last = low + step * math.floor((high - low) / step + _ROUNDING)
    return Interval(low, float(f"{last:.12g}"), step, whole=whole)


DISTRIBUTIONS = {
    "int_uniform": _int_uniform,
    "uniform": _uniform,
    "q_uniform": _q_uniform,
    "log_uniform_values": _log_uniform_values,
}
"""Of W&B's distributions over an interval those that are searched here, too."""

_KEYS = ("value", "values", "probabilities", "min", "max", "q", "distribution")


def read_parameter(description: Any) -> Parameter:
    """A parameter as a sweep file describes it.

    Raises:
        HadError: what is wrong with the description, and what would do.
    """
    if not isinstance(description, Mapping):
        raise HadError("must be a mapping with value, values, or min and max")
    for name in description:
        if name not in _KEYS:
            raise HadError(f"{name}: must be {one_of(name, _KEYS)}")
    if "value" in description:
        return Choice((_written(description["value"]),))
    if "values" in description:
        return _choice(description["values"], description.get("probabilities"))
    return _interval(description)


def _choice(values: Any, weights: Any) -> Choice:
    if not isinstance(values, list) or not values:
        raise HadError(f"values={values}: must be a list of at least one")
    if weights is not None and (not isinstance(weights, list) or len(weights) != len(values)):
        raise HadError(f"probabilities={weights}: must be a list, one for each of the values")
    return Choice(tuple(map(_written, values)), tuple(weights) if weights else None)


def _interval(description: Mapping[str, Any]) -> Interval:
    low: Any = description.get("min")
    high: Any = description.get("max")
    q: Any = description.get("q")
    if not _number(low) or not _number(high) or low > high:
        raise HadError(f"min={low}, max={high}: must be two numbers in order, or give values")
    usual = "int_uniform" if isinstance(low, int) and isinstance(high, int) else "uniform"
    name = description.get("distribution", usual)
    if name not in DISTRIBUTIONS:
        raise HadError(f"distribution={name}: must be {one_of(name, DISTRIBUTIONS)}, or values")
    if q is not None and (not _number(q) or q <= 0):
        raise HadError(f"q={q}: must be a number greater than 0")
    if name.startswith("log") and low <= 0:
        raise HadError(f"min={low}: must be greater than 0 on a logarithmic scale")
    return DISTRIBUTIONS[name](low, high, q)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _written(value: Any) -> str:
    """A value the way W&B's agent writes it on a command line."""
    if value is None:
        raise HadError('null: W&B would write it as None; put it in quotes: "null"')
    if isinstance(value, Mapping):
        raise HadError(f"{value}: a mapping is no value; give its keys, dotted, as parameters")
    return str(value)
