"""Images of a data set on the Hub."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, Any

from had.errors import HadError
from had.tasks.hub import load_split, undecoded
from had.tasks.images.sources import Images


class HubImages(Images):
    """One split of a data set with a column of images and one of class numbers."""

    def __init__(
        self, data: Any, column: str, labels: list[str], source: str, classes: list[str]
    ) -> None:
        super().__init__(labels, source, classes)
        self._data, self._column = data, column

    @classmethod
    def load(cls, source: str, split: str, column: str, label: str) -> HubImages:
        """Downloads one split, or finds it in the cache.

        Raises:
            HubUnavailableError: `datasets` is not installed, or there is no such data set in reach.
            HadError: a column is missing.
        """
        data = load_split(source, None, split)
        missing = {column, label} - set(data.column_names)
        if missing:
            there = ", ".join(data.column_names)
            raise HadError(f"{source}: no column {', '.join(sorted(missing))}; there are: {there}")
        names = data.features[label].names
        labels = [names[number] for number in data[label]]
        return cls(undecoded(data, column), column, labels, f"{source} {split}", names)

    def open(self, row: int) -> Path | IO[bytes]:
        cell = self._data[row][self._column]  # an image is inside the data set, or a file beside it
        return Path(cell["path"]) if cell["bytes"] is None else io.BytesIO(cell["bytes"])

    def where(self, row: int) -> str:
        return f"{self.source}:{row}"

    def stamp(self, row: int) -> str:
        return f"{self._data._fingerprint} {row}"
