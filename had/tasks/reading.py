"""Readers for tab-separated, comma-separated and JSON-lines files.

Every error names the file and the line. A reader yields one record for each example: its line and
its selected cells, or None for a ragged line (too few or too many cells).
"""

import csv
import difflib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from had.errors import HadError

logger = logging.getLogger(__name__)

Record = tuple[int, list[str] | None]
Cells = Callable[[Path], Iterator[tuple[int, list[str]]]]

_MAX_RAGGED = 0.01  # more than this share of ragged lines is a wrong format, not a blemish
_MAX_FIELD = 2**31 - 1  # characters in a CSV field: the largest C long everywhere


@dataclass(frozen=True)
class Columns:
    """Which columns hold the texts and the label: by name, or by index from 0."""

    texts: Sequence[str | int]
    label: str | int

    @property
    def all(self) -> list[str | int]:
        return [*self.texts, self.label]


@dataclass(frozen=True)
class Rows:
    """The selected cells of one source.

    Attributes:
        texts: one list of cells for each text column (one for sentences, two for pairs).
        labels: label cells, stripped.
        lines: the line each row began on, from 1.
        source: the file or data set, for messages.
    """

    texts: tuple[list[str], ...]
    labels: list[str]
    lines: Sequence[int]
    source: str

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, row: int) -> str:
        """``file:line`` of a row."""
        return f"{self.source}:{self.lines[row]}"


def read_rows(path: Path, columns: Columns, *, header: bool = True) -> Rows:
    """Reads the texts and labels of a file, whose format is told by its suffix.

    Args:
        path: a ``.tsv`` (no quoting), ``.csv`` (quoting as spreadsheets do), ``.jsonl`` or
            ``.ndjson`` file in UTF-8, with or without a byte order mark.
        columns: what to read.
        header: whether the first line of a TSV or CSV file names the columns.

    Raises:
        HadError: no such file, unknown suffix, undecodable, no such column, no rows, or more than
            1 % of its lines ragged. Fewer are skipped with one warning.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise HadError(f"{path}: unknown suffix {path.suffix!r}; known: {', '.join(_READERS)}")
    if not path.is_file():
        raise HadError(f"{path}: no such file")
    return _collect(path, reader(path, columns, header), len(columns.texts))


def _collect(path: Path, records: Iterator[Record], num_texts: int) -> Rows:
    rows: list[list[str]] = []
    lines: list[int] = []
    ragged: list[int] = []
    for line, cells in records:
        if cells is None:
            ragged.append(line)
            continue
        rows.append(cells)
        lines.append(line)
    _judge_ragged(path, ragged, len(rows))
    if not rows:
        raise HadError(f"{path}: the file has no examples; it needs one a line")
    *texts, labels = (list(column) for column in zip(*rows, strict=True))
    assert len(texts) == num_texts
    return Rows(tuple(texts), [label.strip() for label in labels], lines, str(path))


def _judge_ragged(path: Path, ragged: list[int], good: int) -> None:
    if not ragged:
        return
    total = len(ragged) + good
    found = (
        f"{len(ragged)} of {total} lines have a wrong number of columns, first {path}:{ragged[0]}"
    )
    if len(ragged) > _MAX_RAGGED * total:
        raise HadError(f"{found}; more than {_MAX_RAGGED:.0%} is not skipped: check the separator")
    logger.warning("%s; skipped", found)


def _decoded_lines(path: Path) -> Iterator[str]:
    """The lines with their ends, split at line feeds alone: a text may hold any other separator."""
    offset = 0
    try:
        with path.open("rb") as file:
            for raw in file:
                line = raw.decode("utf-8")
                yield line if offset else line.removeprefix("\ufeff")
                offset += len(raw)
    except UnicodeDecodeError as error:
        raise HadError(
            f"{path}: byte {offset + error.start} is not valid UTF-8; save the file as UTF-8"
        ) from None
    except OSError as error:
        raise HadError(f"{path}: cannot be read ({error.strerror})") from error


def _tab_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Cells between tabs. Quotes are text: the official files hold unpaired ones."""
    for number, line in enumerate(_decoded_lines(path), start=1):
        cells = line.rstrip("\r\n").split("\t")
        if cells != [""]:
            yield number, cells


def _comma_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Cells of a CSV file; a quoted one may hold commas, doubled quotes and line ends."""
    limit = csv.field_size_limit(_MAX_FIELD)
    reader = csv.reader(_decoded_lines(path), strict=True)
    start = 1
    try:
        for cells in reader:
            if cells:
                yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise HadError(f"{path}:{start}: malformed CSV ({error})") from None
    finally:
        csv.field_size_limit(limit)


def _read_delimited(cells: Cells, path: Path, columns: Columns, header: bool) -> Iterator[Record]:
    records = cells(path)
    names = [name.strip() for name in next(records, (0, []))[1]] if header else None
    if names == []:
        raise HadError(f"{path}: the file is empty; copy or download it again")
    width = len(names) if names else _usual_width(cells(path))
    positions = [_position(path, column, names, width) for column in columns.all]
    for line, row in records:
        yield line, [row[i] for i in positions] if len(row) == width else None


def _usual_width(records: Iterator[tuple[int, list[str]]]) -> int:
    """The commonest number of cells: without a header the first line may itself be ragged."""
    widths = Counter(len(cells) for _, cells in records)
    return max(widths, key=widths.__getitem__, default=0)


def _position(path: Path, column: str | int, names: list[str] | None, width: int) -> int:
    if isinstance(column, int):
        if not 0 <= column < width and width:
            raise HadError(f"{path}: no column {column}; there are {width}, counted from 0")
        return column
    if names is None:
        raise HadError(f"{path}: column {column!r} needs a header line; give an index from 0")
    if column not in names:
        raise HadError(_no_column(str(path), column, names))
    return names.index(column)


def _no_column(where: str, column: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(column, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{where}: no column {column!r}; there are: {', '.join(names)}{hint}"


def _read_tsv(path: Path, columns: Columns, header: bool) -> Iterator[Record]:
    return _read_delimited(_tab_cells, path, columns, header)


def _read_csv(path: Path, columns: Columns, header: bool) -> Iterator[Record]:
    return _read_delimited(_comma_cells, path, columns, header)


def _read_jsonl(path: Path, columns: Columns, header: bool) -> Iterator[Record]:
    """One object a line. `header` has no meaning here: every record names its own columns."""
    for number, line in enumerate(_decoded_lines(path), start=1):
        if line.strip():
            record = _json_object(line, f"{path}:{number}")
            yield number, [_json_cell(record, str(key), f"{path}:{number}") for key in columns.all]


def _json_object(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise HadError(f"{where}: malformed JSON ({error.msg}, column {error.colno})") from None
    if not isinstance(record, dict):
        raise HadError(f"{where}: expected one JSON object a line, found {type(record).__name__}")
    return record


def _json_cell(record: dict[str, Any], key: str, where: str) -> str:
    if key not in record:
        raise HadError(_no_column(where, key, list(record)))
    value = record[key]
    if not isinstance(value, str | int | float):
        raise HadError(f"{where}: {key!r} is neither text nor a number: {json.dumps(value)[:60]}")
    return str(value)


_READERS: Mapping[str, Callable[[Path, Columns, bool], Iterator[Record]]] = {
    ".tsv": _read_tsv,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
}
