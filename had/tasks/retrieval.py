"""Retrieval: facts hidden in a long text, and a question about one of them at its end."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from torchmetrics import MetricCollection

from had.errors import HadError
from had.tasks.base import PreprocessorSource, TaskData
from had.tasks.language import CausalTask, TokenDataset
from had.tasks.token_losses import IGNORED, AnswerAccuracy
from had.tasks.vocabulary import Document

Tokens = NDArray[np.int32]

_SAMPLE = 200  # facts in the text that a vocabulary is trained on


@dataclass(frozen=True)
class Episode:
    """One text with its question and answer.

    Attributes:
        tokens: (length,), the answer last.
        answer: how many of them are the answer.
    """

    tokens: Tokens
    answer: int


@dataclass(kw_only=True, eq=False)
class RetrievalTask(CausalTask):
    """Generated texts; the answer counts only if all its tokens are right.

    A training sequence holds one text of `context` tokens, or two, four, ... shorter ones in a row,
    so that all lengths down to `shortest` are learned and short ones give many answers a step.
    Evaluated are full contexts with the fact anywhere, and every length with every depth, as
    `length<tokens>_depth<percent>/accuracy`.

    Attributes:
        statement: a fact, with {key} and {answer} in it.
        question: asks for it, with {key} in it; the answer follows.
        names: what keys are drawn from; empty for random digits.
        key_digits: of such a key.
        answer_digits: of an answer.
        facts: in a text; null for as many as fit.
        filler: sentences around the facts.
        shuffled: whether these are drawn at random, or follow each other in order.
        shortest: tokens of the shortest text trained on.
        train_sequences: generated for training.
        eval_sequences: generated for each evaluation set.
        eval_lengths: tokens of texts evaluated apart.
        eval_depths: where the fact is in these, in percent of the text before it.
        seed: of all that is generated.
    """

    statement: str
    question: str
    names: list[str]
    key_digits: int
    answer_digits: int
    facts: int | None
    filler: list[str]
    shuffled: bool
    shortest: int
    train_sequences: int
    eval_sequences: int
    eval_lengths: list[int]
    eval_depths: list[int]
    seed: int
    _tokenizer: Any = field(default=None, init=False, repr=False)

    def problems(self) -> list[str]:
        problems = super().problems()
        sizes = ("answer_digits", "shortest", "train_sequences", "eval_sequences")
        problems += [f"task.{key}: must be 1 or more" for key in sizes if getattr(self, key) < 1]
        if self.answer_digits >= self.context:
            problems.append(
                f"task.answer_digits={self.answer_digits}: the answer is longer than "
                f"task.context={self.context}; shorten it or lengthen the context"
            )
        for length in self.eval_lengths:
            if length > self.context:
                problems.append(
                    f"task.eval_lengths: {length} is beyond task.context={self.context}"
                )
        if not all(0 <= depth <= 100 for depth in self.eval_depths):
            problems.append(f"task.eval_depths={self.eval_depths}: are percentages, 0 to 100")
        if "{answer}" not in self.statement or not self.filler:
            problems.append("task.statement and task.filler: facts need {answer}, texts a filler")
        return problems

    def read(self) -> None:
        """Nothing to read: the texts are generated."""

    def preprocessor(self, source: PreprocessorSource) -> Any:
        return self._vocabulary.tokenizer(source.preprocessor, [self._sample()])

    def _sample(self) -> Document:
        """Text for a vocabulary to be trained on."""
        random = RandomState(self.seed)
        facts = [self._fact(key, random) for _ in range(_SAMPLE) for key in self._keys(1, random)]
        pieces = [
            piece
            for statement, question, answer in facts
            for piece in (statement, question, answer)
        ]
        return Document("generated text", " ".join([*self.filler, *pieces]).encode())

    def encode(self, preprocessor: Any) -> TaskData:
        """Generates all sets.

        Args:
            preprocessor: a tokenizer.

        Raises:
            HadError: question, answer and a fact are longer than a text.
        """
        self._tokenizer, self._num_tokens = preprocessor, len(preprocessor)
        random = RandomState(self.seed)
        train = [list(self._row(random)) for _ in range(self.train_sequences)]
        sets = {"": self._set(self.context, None)}
        for length in self.eval_lengths:
            for depth in self.eval_depths:
                sets[f"length{length}_depth{depth}"] = self._set(length, depth)
        return TaskData(_dataset(train), sets)

    def _row(self, random: RandomState) -> Iterator[Episode]:
        """One training sequence: texts of equal length in a row, the last one takes the rest."""
        most = max(1, self.context // self.shortest)
        count = 2 ** random.randint(most.bit_length())
        for index in range(count):
            border = self.context * (index + 1) // count - self.context * index // count
            # One token more than the context: the last one is a label only.
            yield self._episode(border + (index == count - 1), random.uniform(), random)

    def _set(self, length: int, depth: int | None) -> TokenDataset:
        random = RandomState([self.seed, 1, length, 101 if depth is None else depth])
        places = random.uniform(size=self.eval_sequences)
        if depth is not None:
            places[:] = depth / 100
        return _dataset([[self._episode(length + 1, place, random)] for place in places])

    def _episode(self, length: int, place: float, random: RandomState) -> Episode:
        """A text of so many tokens whose answer is in the fact at `place`, 0 first to 1 last."""
        key, *_ = keys = self._keys(self.facts or 1, random)
        statement, question, answer = (self._tokens(text) for text in self._fact(key, random))
        room = length - len(question) - len(answer) - len(statement)
        if room < 0:
            raise HadError(
                f"task: a fact, its question and its answer of task.answer_digits="
                f"{self.answer_digits} take {length - room} tokens, longer than a text of {length} "
                "(task.context, task.shortest, task.eval_lengths)"
            )
        if self.facts is None:
            text = self._among_others(statement, key, room, place, random)
        else:
            text = self._hidden(statement, keys[1:], room, place, random)
        return Episode(np.concatenate([*text, question, answer]), len(answer))

    def _hidden(
        self, statement: Tokens, keys: Sequence[str], room: int, place: float, random: RandomState
    ) -> list[Tokens]:
        """Filler with the asked fact at its place and the others, of other keys, at random."""
        others = self._fitting((self._statement(key, random) for key in keys), room)
        room -= sum(map(len, others))
        filler, pieces, start = self._filler(room, random), [], 0
        spots = [
            (float(spot), fact)
            for spot, fact in zip(random.uniform(size=len(others)), others, strict=True)
        ]
        for spot, fact in sorted([*spots, (place, statement)], key=lambda each: each[0]):
            stop = round(spot * room)
            pieces += [filler[start:stop], fact]
            start = stop
        return [*pieces, filler[start:]]

    def _among_others(
        self, statement: Tokens, asked: str, room: int, place: float, random: RandomState
    ) -> list[Tokens]:
        """The asked fact among as many others as fit; filler takes what is left, at the start."""
        keys = (key for _ in range(room) for key in self._keys(1, random) if key != asked)
        facts = self._fitting((self._statement(key, random) for key in keys), room)
        filler = self._filler(room - sum(map(len, facts)), random)
        facts.insert(round(place * len(facts)), statement)
        return [filler, *facts]

    def _fitting(self, facts: Iterable[Tokens], room: int) -> list[Tokens]:
        """The first facts that there is room for."""
        found: list[Tokens] = []
        for fact in facts:
            room -= len(fact)
            if room < 0:
                break
            found.append(fact)
        return found

    def _filler(self, room: int, random: RandomState) -> Tokens:
        sentences = [self._tokens(sentence) for sentence in self.filler]
        count = room // min(len(each) for each in sentences) + 1
        order = random.randint(len(sentences), size=count) if self.shuffled else range(count)
        chosen = [sentences[index % len(sentences)] for index in order]
        return np.concatenate(chosen)[:room]

    def _fact(self, key: str, random: RandomState) -> tuple[str, str, str]:
        answer = _digits(self.answer_digits, random)
        statement = self.statement.format(key=key, answer=answer)
        return statement, self.question.format(key=key), answer

    def _keys(self, count: int, random: RandomState) -> list[str]:
        """Different keys."""
        if self.names:
            order = random.permutation(len(self.names))[:count].tolist()
            return [self.names[index] for index in order]
        keys: dict[str, None] = {}
        while len(keys) < min(count, 10**self.key_digits):
            keys[_digits(self.key_digits, random)] = None
        return list(keys)

    def _statement(self, key: str, random: RandomState) -> Tokens:
        return self._tokens(self._fact(key, random)[0])

    def _tokens(self, text: str) -> Tokens:
        return self._vocabulary.tokens(self._tokenizer, Document("generated text", text.encode()))

    def metrics(self) -> MetricCollection:
        return MetricCollection({"accuracy": AnswerAccuracy()})


def _digits(count: int, random: RandomState) -> str:
    return "".join(map(str, random.randint(10, size=count)))


def _dataset(rows: Sequence[Sequence[Episode]]) -> TokenDataset:
    """Sequences of episodes; only answers are labels."""
    tokens = torch.from_numpy(np.stack([np.concatenate([e.tokens for e in row]) for row in rows]))
    is_answer = torch.from_numpy(
        np.stack([np.concatenate([_marks(e) for e in row]) for row in rows])
    )
    labels = torch.where(is_answer, tokens, IGNORED).int()
    return TokenDataset({"input_ids": tokens[:, :-1].contiguous()}, labels[:, 1:].contiguous())


def _marks(episode: Episode) -> NDArray[np.bool_]:
    marks = np.zeros(len(episode.tokens), dtype=bool)
    marks[len(marks) - episode.answer :] = True
    return marks
