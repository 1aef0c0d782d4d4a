"""Bayesian search by Optuna: every point is chosen in view of the records of those before it."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from had.errors import HadError
from had.results.records import Identity, Record
from had.sweeps.files import Metric
from had.sweeps.points import Point, read_lines
from had.sweeps.pool import Progress
from had.sweeps.search import Space

_NUMBER_OF_SEEDS = 2**32

Records = Callable[[], Mapping[Identity, Record]]


@dataclass(frozen=True, eq=False)
class Suggestion:
    """One combination: several points where the command line lists values, such as seeds."""

    trial: Any
    points: Sequence[Point]


class Bayes:
    """A study that lives on records: whatever stops it, the same command continues it.

    What Optuna chose is noted in a file before it runs. A study that starts again takes up these
    choices in their order, learns of those on record, and the others run first.

    Args:
        space: what it chooses from.
        metric: of the records; of several points of a combination the mean counts.
        count: combinations to try.
        seed: of what Optuna draws at random; with one worker, the whole search follows from it.
        folder: where the choices are noted.
        records: reads what is on record.

    Attributes:
        points: of all combinations so far, those of earlier commands among them.

    Raises:
        HadError: Optuna is not installed, or an end of a parameter cannot be run as configured.
    """

    def __init__(
        self,
        space: Space,
        metric: Metric,
        count: int,
        seed: int,
        folder: Path,
        records: Records,
    ) -> None:
        self._optuna = _optuna()
        self._space, self._metric, self._records = space, metric, records
        self._count, self._seed = count, seed
        self._open: list[Suggestion] = []
        self._study = self._optuna.create_study(direction=metric.goal)
        self._notes = folder / f"{_digest(space, metric, seed)}.choices.jsonl"
        self._noted = _read_notes(self._notes)
        read_lines(_corners(space))  # refuse now what would be refused hours later
        for choice in self._noted[:count]:
            self._study.enqueue_trial(choice)
        self.points = self._chosen_before()

    @property
    def ahead(self) -> int:
        """Combinations it has yet to choose."""
        return max(0, self._count - max(self._asked, len(self._noted)))

    @property
    def _asked(self) -> int:
        return sum(1 for each in self._study.trials if each.state.name != "WAITING")

    def more(self, progress: Progress) -> Sequence[Point]:
        """The points of the next combination that is not on record."""
        failed = {point.identity for point, _ in progress.failed}
        while True:
            known = self._records()
            self._tell(known, failed)
            if not self.ahead:
                return ()
            begun = {point.identity for point in self.points}
            suggestion = self._ask()
            self.points += [p for p in suggestion.points if p.identity not in begun]
            if fresh := [p for p in suggestion.points if p.identity not in begun | known.keys()]:
                return fresh

    def _chosen_before(self) -> list[Point]:
        trials = [self._optuna.trial.FixedTrial(choice) for choice in self._noted[: self._count]]
        return read_lines(self._line(trial) for trial in trials)

    def _ask(self) -> Suggestion:
        # Drawn anew for every trial: it does not matter how many the same process has drawn.
        seed = (self._seed + self._asked) % _NUMBER_OF_SEEDS
        self._study.sampler = self._optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        trial = self._study.ask()
        line = self._line(trial)
        if trial.number >= len(self._noted):
            self._note(trial.params)
        suggestion = Suggestion(trial, read_lines([line]))
        self._open.append(suggestion)
        return suggestion

    def _note(self, choice: dict[str, Any]) -> None:
        self._noted.append(choice)
        self._notes.parent.mkdir(parents=True, exist_ok=True)
        partial = self._notes.with_suffix(".partial")
        partial.write_text("".join(f"{json.dumps(each)}\n" for each in self._noted))
        os.replace(partial, self._notes)

    def _line(self, trial: Any) -> list[str]:
        parameters = self._space.parameters
        return self._space.line({key: each.suggest(trial, key) for key, each in parameters.items()})

    def _tell(self, known: Mapping[Identity, Record], failed: set[Identity]) -> None:
        for suggestion in list(self._open):
            identities = [point.identity for point in suggestion.points]
            if any(identity not in known and identity not in failed for identity in identities):
                continue
            self._open.remove(suggestion)
            if failed.intersection(identities):
                self._study.tell(suggestion.trial, state=self._optuna.trial.TrialState.FAIL)
            else:
                values = [value_of(known[identity], self._metric) for identity in identities]
                self._study.tell(suggestion.trial, fmean(values))


def value_of(record: Record, metric: Metric) -> float:
    """The number in a record that a search is for.

    Raises:
        HadError: there is none; the message names those there are.
    """
    value = record.get(metric.name)
    if isinstance(value, int | float):
        return float(value)
    known = [key for key, each in record.items() if "/" in key and isinstance(each, int | float)]
    raise HadError(f"metric.name={metric.name}: not in the records, which have {', '.join(known)}")


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise HadError('method=bayes needs Optuna: pip install "had[optuna]"') from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def _corners(space: Space) -> list[list[str]]:
    """Command lines with every value or end of every parameter, the others at their first."""
    corners = {key: each.corners() for key, each in space.parameters.items()}
    first = {key: values[0] for key, values in corners.items()}
    others = [(key, value) for key, values in corners.items() for value in values[1:]]
    return [space.line(first), *(space.line({**first, key: value}) for key, value in others)]


def _digest(space: Space, metric: Metric, seed: int) -> str:
    """Tells searches apart: the choices of one are none of another's."""
    text = repr((sorted(space.parameters.items()), sorted(space.fixed), metric, seed))
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _read_notes(file: Path) -> list[dict[str, Any]]:
    """What earlier commands chose."""
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text().splitlines()]
