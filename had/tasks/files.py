"""A user's own classification or regression data, from CSV, TSV or JSON-lines files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from had.tasks.objectives import OBJECTIVES, Objective
from had.tasks.reading import Columns, Rows, read_rows
from had.tasks.splits import fraction_problems
from had.tasks.text import TextTask


@dataclass(kw_only=True, eq=False)
class FilesTask(TextTask):
    """A task on the user's own files.

    Attributes:
        path: the training file: .csv, .tsv (no quoting), .jsonl or .ndjson, in UTF-8.
        eval_path: the evaluation file; null holds out `eval_fraction` of the training file.
        text: the text column, or a list of two for pairs.
        label: the label column: any strings (numbered in sorted order), or numbers for regression.
        header: whether CSV and TSV files name their columns; without, columns are indices from 0.
        eval_fraction: share held out for evaluation where there is no `eval_path`.
        seed: of that split alone, so that every run of a sweep sees the same one.
    """

    path: str
    eval_path: str | None
    text: str | int | list[str | int]
    label: str | int
    header: bool
    eval_fraction: float
    seed: int

    def problems(self) -> list[str]:
        problems = super().problems() + fraction_problems("eval_fraction", self.eval_fraction)
        if len(self._text_columns) not in (1, 2):
            problems.append(f"task.text={self.text}: must name one column or two")
        if self.label in self._text_columns:
            problems.append(f"task.label={self.label}: the label is also a text column")
        return problems

    @property
    def _text_columns(self) -> Sequence[str | int]:
        return [self.text] if isinstance(self.text, str | int) else list(self.text)

    def _load(self) -> Objective:
        train = self._rows(self.path)
        objective = OBJECTIVES[self.objective].learned(train)
        if self.eval_path is None:
            self._keep_split(objective, train, self.eval_fraction, self.seed)
        else:
            self._keep(objective, train, {"": self._rows(self.eval_path)})
        return objective

    def _rows(self, path: str) -> Rows:
        columns = Columns(self._text_columns, self.label)
        return read_rows(Path(path).expanduser(), columns, header=self.header)
