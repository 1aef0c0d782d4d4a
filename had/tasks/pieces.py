"""Short texts told apart by number, so that long texts are arrays of numbers until the very end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]
Numbers = NDArray[np.int64]

NOTHING = 10  # the piece without tokens; those before it are the digits


class Pieces:
    """Short texts and their tokens. Piece 0 is the digit 0 and so on, then comes `NOTHING`.

    Args:
        encode: a text's tokens, (tokens,).
    """

    def __init__(self, encode: Callable[[str], Tokens]) -> None:
        self._encode = encode
        self._tokens: list[Tokens] = []
        self._flat, self._starts, self.lengths = (np.zeros(0, dtype=np.int64) for _ in range(3))
        self.add([*"0123456789", ""])

    def add(self, texts: Sequence[str]) -> Numbers:
        """More pieces, (texts,): their numbers, which follow each other."""
        self._tokens += [self._encode(text) for text in texts]
        self._flat = np.concatenate(self._tokens)
        self.lengths = np.array([len(tokens) for tokens in self._tokens])
        self._starts = self.lengths.cumsum() - self.lengths
        return np.arange(len(self._tokens) - len(texts), len(self._tokens))

    def longest(self, numbers: Numbers) -> int:
        """The piece with the most tokens."""
        return int(numbers[self.lengths[numbers].argmax()])

    def tokens(self, numbers: Numbers) -> Tokens:
        """The tokens of all these pieces, of any shape, one after the other."""
        return self._flat[ranges(self._starts[numbers], self.lengths[numbers])]


@dataclass(frozen=True)
class Template:
    """A sentence with places to fill.

    Attributes:
        parts: numbers of pieces, and names of places, in order.
    """

    parts: tuple[int | str, ...]

    @classmethod
    def parse(cls, text: str, pieces: Pieces) -> Template:
        """A format string: "The number of {key} is {answer}."."""
        parts: list[int | str] = []
        for literal, name, *_ in Formatter().parse(text):
            parts += pieces.add([literal]).tolist() if literal else []
            parts += [name] if name else []
        return cls(tuple(parts))

    def fill(self, values: Mapping[str, Numbers]) -> tuple[Numbers, NDArray[np.bool_]]:
        """Sentences as pieces.

        Args:
            values: what comes in each place, as pieces of shape (..., of one).

        Returns:
            (..., P) numbers, and (P,) which of them are the answer.
        """
        shape = values["answer"].shape[:-1]
        columns = [
            values[part] if isinstance(part, str) else np.full((*shape, 1), part)
            for part in self.parts
        ]
        widths = [column.shape[-1] for column in columns]
        is_answer = np.repeat([part == "answer" for part in self.parts], widths)
        return np.concatenate(columns, axis=-1), is_answer


def ranges(starts: Numbers, lengths: Numbers) -> Numbers:
    """start, start + 1, ... for every start and its length, one range after the other."""
    starts, lengths = starts.ravel(), lengths.ravel()
    return np.repeat(starts - (lengths.cumsum() - lengths), lengths) + np.arange(lengths.sum())


def places(text: str) -> set[str]:
    """The names of the places in a format string."""
    return {name for _, name, *_ in Formatter().parse(text) if name}


def digits(numbers: Numbers, count: int) -> Numbers:
    """Decimal digits, the first ones first, of numbers (...): pieces (..., count)."""
    powers = 10 ** np.arange(count - 1, -1, -1)
    return numbers[..., None] // powers % 10


def different(texts: int, count: int, below: int, random: np.random.Generator) -> Numbers:
    """Numbers below some other, no two of a row alike, (texts, count).

    All such rows are equally likely: what is drawn again is drawn alike for all numbers.
    """
    assert count <= below
    drawn = random.integers(below, size=(texts, count))
    unfinished = np.arange(texts)
    while len(unfinished):
        rows = drawn[unfinished]
        again = _seen_before(rows)
        rows[again] = random.integers(below, size=int(again.sum()))
        drawn[unfinished] = rows
        unfinished = unfinished[again.any(1)]
    return drawn


def _seen_before(rows: Numbers) -> NDArray[np.bool_]:
    """Where a number stands further left in its row, too."""
    order = rows.argsort(axis=1, kind="stable")
    ranked = np.take_along_axis(rows, order, 1)
    seen = np.zeros(rows.shape, dtype=bool)
    np.put_along_axis(seen, order[:, 1:], ranked[:, 1:] == ranked[:, :-1], 1)
    return seen
