"""Texts with facts among filler and a question at the end, many at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from had.tasks.pieces import NOTHING, Numbers, Pieces, Template, Tokens, different, digits, ranges

Marks = NDArray[np.bool_]


@dataclass(frozen=True)
class Shape:
    """What texts that are written together have in common.

    Attributes:
        length: tokens, the answer to the question last.
        key_digits: of keys that are numbers.
        facts: in a text, the one that is asked for among them.
        retold: how many of these are told a second time.
    """

    length: int
    key_digits: int
    facts: int
    retold: int = 0


class Writer:
    """Writes the texts of a task; `had.tasks.retrieval.RetrievalTask` has the same settings.

    Args:
        pieces: what texts consist of.
        statement: a fact, with {key} and {answer} in it.
        question: asks for it, with {key} in it.
        names: what keys are drawn from; empty for random digits.
        answer_digits: of an answer.
        facts: in a text; None for as many as fit.
        filler: sentences around the facts.
        shuffled: whether these are drawn at random.
    """

    def __init__(
        self,
        pieces: Pieces,
        *,
        statement: str,
        question: str,
        names: Sequence[str],
        answer_digits: int,
        facts: int | None,
        filler: Sequence[str],
        shuffled: bool,
    ) -> None:
        self._pieces = pieces
        self._statement = Template.parse(statement, pieces)
        self._question = Template.parse(question + "{answer}", pieces)
        self._names, self._filler = pieces.add(names), pieces.add(filler)
        self._answer_digits, self._facts, self._shuffled = answer_digits, facts, shuffled

    # ---- what fits ------------------------------------------------------------------------------

    def sizes(self, key_digits: int) -> tuple[int, int]:
        """Most tokens of a fact, and of a question with its answer."""
        digit = self._pieces.longest(np.arange(10))
        key = [self._pieces.longest(self._names)] if len(self._names) else [digit] * key_digits
        values = {"key": np.array(key), "answer": np.full(self._answer_digits, digit)}
        fact, question = (
            int(self._pieces.lengths[template.fill(values)[0]].sum())
            for template in (self._statement, self._question)
        )
        return fact, question

    def shapes(self, length: int, key_digits: int, retelling: bool) -> list[Shape]:
        """The shapes of texts of so many tokens, all to be equally frequent.

        With retelling, the facts told twice are as many as can be in the first shape, half as many
        in the next, and so on to none in the last.
        """
        fact, question = self.sizes(key_digits)
        fitting = min((length - question) // fact, self._different_keys(key_digits))
        assert fitting > 0, "the task has compared the length with the sizes"
        if self._facts is None:  # texts are full: a second telling takes the place of another fact
            told, most, lost = fitting, (fitting - 1) // 2, 1
        else:
            told = min(self._facts, fitting)
            most, lost = min(told, fitting - told), 0
        counts = [most >> halved for halved in range(most.bit_length() + 1)] if retelling else [0]
        return [Shape(length, key_digits, told - lost * count, count) for count in counts]

    def _different_keys(self, key_digits: int) -> int:
        return len(self._names) or 10**key_digits

    # ---- texts ----------------------------------------------------------------------------------

    def write(
        self, shape: Shape, depths: NDArray[np.float64], random: np.random.Generator
    ) -> tuple[Tokens, Marks]:
        """Texts, and which of their tokens are answers to be learned.

        Args:
            shape: of all of them.
            depths: (texts,) where the fact that is asked for is told, 0 first to 1 last.
            random: gives everything else.

        Returns:
            (texts, length) each. Marked are the answer at the end, and those of facts that the text
            has told before.
        """
        told, again, spots = self._tellings(shape, depths, random)
        values = self._values(shape, len(depths), random)
        sentences, marks = self._sentences(values, told, again)
        lengths = self._pieces.lengths[sentences]
        sizes = lengths.sum(2)
        room = shape.length - sizes.sum(1)
        before = np.rint(spots * room[:, None]).astype(np.int64)
        rows = shape.length * np.arange(len(told))[:, None]
        where = ranges(rows + before + sizes.cumsum(1) - sizes, sizes)
        tokens = np.zeros(len(told) * shape.length, dtype=np.int32)
        is_answer, is_filler = np.zeros(len(tokens), dtype=bool), np.ones(len(tokens), dtype=bool)
        tokens[where] = self._pieces.tokens(sentences)
        is_answer[where] = np.repeat(marks.ravel(), lengths.ravel())
        is_filler[where] = False
        tokens[is_filler] = self._filling(room, random)
        return tokens.reshape(-1, shape.length), is_answer.reshape(-1, shape.length)

    def _tellings(
        self, shape: Shape, depths: NDArray[np.float64], random: np.random.Generator
    ) -> tuple[Numbers, Marks, NDArray[np.float64]]:
        """What is told in which order: the last fact is asked for, the first ones are retold.

        Returns:
            (texts, tellings) facts by number, and whether the text has told them before; and
            (texts, tellings + 1) which share of the filler is ahead of them and of the question.
        """
        texts, facts, retold = len(depths), shape.facts, shape.retold
        spots = self._spots(texts, facts + retold, random)
        spots[:, facts - 1] = depths
        pair = spots[:, :retold].copy(), spots[:, facts:].copy()
        spots[:, :retold], spots[:, facts:] = np.minimum(*pair), np.maximum(*pair)
        order = spots.argsort(axis=1)
        again = order >= facts
        ahead = np.ones((texts, facts + retold + 1))  # packed facts have all filler ahead of them
        if self._facts is not None:
            ahead[:, :-1] = np.take_along_axis(spots, order, 1)
        return order - facts * again, again, ahead

    def _spots(self, texts: int, count: int, random: np.random.Generator) -> NDArray[np.float64]:
        """Where facts are told, 0 first to 1 last: anywhere, or packed ones side by side."""
        if self._facts is not None:
            return random.random((texts, count))
        side_by_side = np.tile((np.arange(count) + 0.5) / count, (texts, 1))
        return random.permuted(side_by_side, axis=1)

    def _values(self, shape: Shape, texts: int, random: np.random.Generator) -> dict[str, Numbers]:
        """Keys, no two alike in a text, and answers: pieces (texts, facts, of one)."""
        keys = different(texts, shape.facts, self._different_keys(shape.key_digits), random)
        named = len(self._names) > 0
        return {
            "key": self._names[keys][..., None] if named else digits(keys, shape.key_digits),
            "answer": random.integers(10, size=(texts, shape.facts, self._answer_digits)),
        }

    def _sentences(
        self, values: Mapping[str, Numbers], told: Numbers, again: Marks
    ) -> tuple[Numbers, Marks]:
        """Pieces of the tellings and of the question, and which of these are marked.

        Returns:
            (texts, tellings + 1, pieces of a sentence) each.
        """
        facts = {
            name: np.take_along_axis(each, told[..., None], 1) for name, each in values.items()
        }
        stated, in_fact = self._statement.fill(facts)
        asked, in_question = self._question.fill({k: each[:, -1:] for k, each in values.items()})
        return (
            _stacked(stated, asked, NOTHING),
            _stacked(again[..., None] & in_fact, np.broadcast_to(in_question, asked.shape), False),
        )

    def _filling(self, room: Numbers, random: np.random.Generator) -> Tokens:
        """Filler of texts with so much room, (texts,), one text's after the other's."""
        texts, most = len(room), int(room.max())
        count = most // int(self._pieces.lengths[self._filler].min()) + 1
        chosen = np.arange(count)[None] % len(self._filler)
        if self._shuffled:
            chosen = random.integers(len(self._filler), size=(texts, count))
        sentences = self._filler[chosen]
        lengths = np.broadcast_to(self._pieces.lengths[sentences].sum(1), texts)
        starts = lengths.cumsum() - lengths if self._shuffled else np.zeros_like(room)
        return self._pieces.tokens(sentences)[ranges(starts, room)]


def _stacked(sentences: NDArray[Any], question: NDArray[Any], value: int) -> NDArray[Any]:
    """(texts, n, P) and (texts, 1, Q) together; the shorter ones are filled up with a value."""
    width = max(sentences.shape[2], question.shape[2])
    wide = [
        np.pad(each, ((0, 0), (0, 0), (0, width - each.shape[2])), constant_values=value)
        for each in (sentences, question)
    ]
    return np.concatenate(wide, axis=1)
