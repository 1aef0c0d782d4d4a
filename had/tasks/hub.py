"""Data sets of the Hugging Face Hub, or of a local directory in the same form."""

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from had.errors import HadError
from had.tasks.reading import Rows


class HubUnavailableError(HadError):
    """The data set cannot be had here and now, as opposed to being there and wrong."""


@dataclass(frozen=True)
class HubSubset:
    """One subset of a data set.

    Attributes:
        source: Hub id (``nyu-mll/glue``) or a directory.
        subset: name of the subset (configuration) in it.
        texts: columns of the texts.
        label: column of the label.
        cells: the label cells that official files use, in the order of the Hub's class numbers;
            empty for regression.
    """

    source: str
    subset: str
    texts: Sequence[str]
    label: str
    cells: Sequence[str]

    def rows(self, split: str) -> Rows:
        """Downloads (or finds in the cache) one split.

        Raises:
            HubUnavailableError: `datasets` is not installed, or there is no such data set in reach.
            HadError: a column is missing, or a label is absent or unknown.
        """
        name = f"{self.source} {self.subset} {split}"
        data = load_split(self.source, self.subset, split)
        missing = {*self.texts, self.label} - set(data.column_names)
        if missing:
            there = ", ".join(data.column_names)
            raise HadError(f"{name}: no column {', '.join(sorted(missing))}; there are: {there}")
        texts = tuple([str(text) for text in data[column]] for column in self.texts)
        labels = [self._cell(label, name, row) for row, label in enumerate(data[self.label])]
        if not labels:
            raise HadError(f"{name}: the split has no examples")
        return Rows(texts, labels, range(len(labels)), name)

    def _cell(self, label: Any, name: str, row: int) -> str:
        """The label as an official file would write it."""
        if label is None or (isinstance(label, float) and math.isnan(label)):
            raise HadError(f"{name}:{row}: the label is absent")
        if not isinstance(label, int) or not self.cells:
            return str(label)
        if not 0 <= label < len(self.cells):
            raise HadError(f"{name}:{row}: the label is {label}, known: 0..{len(self.cells) - 1}")
        return self.cells[label]


def hub_text(source: str, subset: str, split: str, column: str = "text") -> str:
    """One split of a data set of lines or paragraphs, as one text.

    Raises:
        HubUnavailableError: `datasets` is not installed, or there is no such data set in reach.
        HadError: there is no such column.
    """
    data = load_split(source, subset, split)
    if column not in data.column_names:
        there = ", ".join(data.column_names)
        raise HadError(f"{source} {subset} {split}: no column {column}; there are: {there}")
    return "".join(data[column])


def load_split(source: str, subset: str | None, split: str) -> Any:
    """One split of a data set, from the Hub, its cache or a directory.

    Raises:
        HubUnavailableError: `datasets` is not installed, or there is no such data set in reach.
    """
    if importlib.util.find_spec("datasets") is None:
        raise HubUnavailableError("the package `datasets` is not installed")
    import datasets  # here alone: it takes seconds to import and local files need none of it

    try:
        return datasets.load_dataset(source, subset, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        first_line = str(error).partition("\n")[0]
        raise HubUnavailableError(f"{type(error).__name__}: {first_line}") from error


def undecoded(data: Any, column: str) -> Any:
    """The same data set, a column of images as `{"bytes": ..., "path": ...}`."""
    import datasets

    return data.cast_column(column, datasets.Image(decode=False))
