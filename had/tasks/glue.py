"""The nine GLUE tasks. Each is data: its folder, columns, labels and metrics are its YAML file."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from had.errors import HadError
from had.tasks.hub import HubSubset, HubUnavailableError
from had.tasks.objectives import OBJECTIVES, Objective
from had.tasks.reading import Columns, Rows, read_rows
from had.tasks.splits import fraction_problems
from had.tasks.text import TextTask

logger = logging.getLogger(__name__)

_SPLIT_KEYS = {"fraction", "seed"}


@dataclass(kw_only=True, eq=False)
class GlueTask(TextTask):
    """A GLUE task from its official files, or from the Hub where there are none.

    Attributes:
        path: the data root; the files are in ``<path>/glue/<folder>``.
        folder: official name of the folder.
        train_file: training file in it.
        dev_file: development file in it, the main evaluation set.
        extra_dev_files: further evaluation sets, name to file.
        header: whether the files begin with a line of column names.
        text: one or two columns, by name or by index from 0.
        label: the label's column.
        labels: label cell to class name, in the order of the classes; empty for regression.
        split: null for the official development set; ``{fraction: 0.8, seed: 0}`` trains on that
            share of the training file and evaluates on the rest. Not an official score.
        hub: Hub data set, or a directory in the same form.
        hub_subset: the task's name in it.
        hub_text: its text columns.
        hub_label: its label column.
        hub_train: its training split.
        hub_dev: its development split.
        hub_extra_devs: further evaluation sets, name to split.
    """

    path: str
    folder: str
    train_file: str
    dev_file: str
    extra_dev_files: dict[str, str]
    header: bool
    text: list[str | int]
    label: str | int
    labels: dict[str, str]
    split: dict[str, float] | None
    hub: str
    hub_subset: str
    hub_text: list[str]
    hub_label: str
    hub_train: str
    hub_dev: str
    hub_extra_devs: dict[str, str]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._objective = OBJECTIVES[self.objective].declared(self.labels)

    def problems(self) -> list[str]:
        problems = super().problems()
        if len(self.text) not in (1, 2):
            problems.append(f"task.text={list(self.text)}: must name one or two columns")
        if self.split is None:
            return problems
        if set(self.split) != _SPLIT_KEYS:
            given = dict(self.split)
            return [*problems, f"task.split={given}: must have the keys fraction and seed"]
        return problems + fraction_problems("split.fraction", self.split["fraction"])

    def _load(self) -> Objective:
        objective = OBJECTIVES[self.objective].declared(self.labels)
        source = self._source()
        if self.split is None:
            self._keep(objective, source.train(), source.evaluation())
        else:
            self._keep_part(objective, source.train(), self.split)
        return objective

    def _keep_part(self, objective: Objective, rows: Rows, split: Mapping[str, float]) -> None:
        fraction, seed = split["fraction"], int(split["seed"])
        self._keep_split(objective, rows, 1 - fraction, seed)
        logger.warning("task %s: not an official score (task.split=%s)", self.name, dict(split))

    def _source(self) -> "_Source":
        local = self._local()
        return local if local.is_there() else self._hub(local)

    def _local(self) -> "_LocalFiles":
        return _LocalFiles(
            folder=Path(self.path).expanduser() / "glue" / self.folder,
            columns=Columns(tuple(self.text), self.label),
            header=self.header,
            train_file=self.train_file,
            dev_files={"": self.dev_file, **self.extra_dev_files},
        )

    def _hub(self, local: "_LocalFiles") -> "_HubSplits":
        subset = HubSubset(
            self.hub, self.hub_subset, self.hub_text, self.hub_label, list(self.labels)
        )
        devs = {"": self.hub_dev, **self.hub_extra_devs}
        return _HubSplits(self.name, local, subset, self.hub_train, devs)


class _Source(Protocol):
    def train(self) -> Rows: ...

    def evaluation(self) -> dict[str, Rows]: ...


@dataclass(frozen=True)
class _LocalFiles:
    """The official files of one task."""

    folder: Path
    columns: Columns
    header: bool
    train_file: str
    dev_files: Mapping[str, str]

    @property
    def files(self) -> list[str]:
        return [self.train_file, *self.dev_files.values()]

    def is_there(self) -> bool:
        """Whether any file is: the others are then missing, which is an error, not a fallback."""
        return any((self.folder / file).is_file() for file in self.files)

    def train(self) -> Rows:
        return self._rows(self.train_file)

    def evaluation(self) -> dict[str, Rows]:
        return {name: self._rows(file) for name, file in self.dev_files.items()}

    def _rows(self, file: str) -> Rows:
        if not (self.folder / file).is_file():
            there = ", ".join(other for other in self.files if (self.folder / other).is_file())
            raise HadError(
                f"{self.folder / file}: no such file, though {there} is there; put the official "
                "file beside it, or divide one file by task.train_file=<file> and "
                "'task.split={fraction: 0.8, seed: 0}' (not an official score)"
            )
        return read_rows(self.folder / file, self.columns, header=self.header)


@dataclass(frozen=True)
class _HubSplits:
    """The same task on the Hub, asked only when no official file is there."""

    name: str
    local: _LocalFiles
    subset: HubSubset
    train_split: str
    dev_splits: Mapping[str, str]

    def train(self) -> Rows:
        try:
            return self.subset.rows(self.train_split)
        except HubUnavailableError as error:
            raise HadError(self._nothing_found(error)) from error

    def evaluation(self) -> dict[str, Rows]:
        return {name: self.subset.rows(split) for name, split in self.dev_splits.items()}

    def _nothing_found(self, error: HubUnavailableError) -> str:
        return (
            f"no data for task {self.name}: looked for {', '.join(self.local.files)} in "
            f"{self.local.folder.absolute()} and for {self.subset.subset!r} of "
            f"{self.subset.source} on the Hub ({error}). Either put the official GLUE files "
            f"there, or set paths.data (or HAD_DATA) to the folder that holds "
            f"glue/{self.local.folder.name}; or `pip install datasets` and go online once."
        )
