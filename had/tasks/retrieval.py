"""Retrieval: facts hidden in a long text, and a question about one of them at its end."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from had.errors import HadError
from had.tasks.base import EncodedDataset, PreprocessorSource, TaskData
from had.tasks.curriculum import MOST_DIGITS, Curriculum, Stage, StagedDataset, doubling
from had.tasks.facts import Marks, Shape, Writer
from had.tasks.language import CausalTask, TokenDataset
from had.tasks.pieces import Pieces, Tokens, places
from had.tasks.token_losses import IGNORED, AnswerAccuracy
from had.tasks.vocabulary import Document

_TOGETHER = 2**20  # tokens written at once: arrays that fit a cache are faster


@dataclass(kw_only=True, eq=False)
class RetrievalTask(CausalTask):
    """Generated texts; the answer counts only if all its tokens are right.

    Training goes through a curriculum of longer and longer texts, each with the question at its
    end. A row of training data holds as many texts of one length as fit in `context`; the model
    sees each by itself. Evaluated are full contexts with the fact anywhere, and every length with
    every depth, as `length<tokens>_depth<percent>/accuracy`.

    Digits are tokens of their own, whatever the tokenizer.

    Attributes:
        statement: a fact, with {key} and {answer} in it.
        question: asks for it, with {key} in it; the answer follows.
        names: what keys are drawn from; empty for random digits.
        key_digits: of such a key.
        answer_digits: of an answer.
        facts: in a text; null for as many as fit.
        filler: sentences around the facts.
        shuffled: whether these are drawn at random, or follow each other in order.
        repeats: whether training texts tell facts a second time; these answers are learned, too.
        shortest: tokens of the shortest texts trained on where there is no curriculum.
        curriculum: stages of training, each with share (of the rows, relative to the others),
            length (tokens of a text, `context` at most) and, where keys are digits, key_digits;
            empty: lengths that double from `shortest` to `context`, in equal shares.
        replay: share of the batches that are of an earlier stage.
        train_sequences: rows of `context` tokens generated for training.
        eval_sequences: texts generated for each evaluation set.
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
    repeats: bool
    shortest: int
    curriculum: list[Any]
    replay: float
    train_sequences: int
    eval_sequences: int
    eval_lengths: list[int]
    eval_depths: list[int]
    seed: int

    def problems(self) -> list[str]:
        problems = super().problems()
        sizes = ("answer_digits", "shortest", "train_sequences", "eval_sequences")
        problems += [f"task.{key}: must be 1 or more" for key in sizes if getattr(self, key) < 1]
        if not 1 <= self.key_digits <= MOST_DIGITS:
            problems.append(f"task.key_digits={self.key_digits}: must be 1 to {MOST_DIGITS}")
        if self.facts is not None and self.facts < 1:
            problems.append(f"task.facts={self.facts}: must be 1 or more, or null for all that fit")
        if not 0 <= self.replay <= 1:
            problems.append(f"task.replay={self.replay}: must be a share between 0 and 1")
        return [*problems, *self._text_problems(), *self._curriculum_problems()]

    def _text_problems(self) -> Iterator[str]:
        if self.answer_digits >= self.context:
            yield (
                f"task.answer_digits={self.answer_digits}: the answer is longer than "
                f"task.context={self.context}; shorten it or lengthen the context"
            )
        for length in self.eval_lengths:
            if length > self.context:
                yield f"task.eval_lengths: {length} is beyond task.context={self.context}"
        if not all(0 <= depth <= 100 for depth in self.eval_depths):
            yield f"task.eval_depths={self.eval_depths}: are percentages, 0 to 100"
        if "answer" not in places(self.statement) or not self.filler or not all(self.filler):
            yield "task.statement and task.filler: facts need {answer}, texts a filler"
        for name in sorted(places(self.statement + self.question) - {"key", "answer"}):
            yield f"task.statement and task.question: {{{name}}} is not known, {{key}} is"

    def _curriculum_problems(self) -> Iterator[str]:
        for index, stage in enumerate(self.curriculum):
            key = f"task.curriculum.{index}"
            yield from Stage.problems(key, stage)
            if self.names and stage.get("key_digits") is not None:
                yield f"{key}.key_digits: keys are drawn from task.names; remove it"

    def read(self) -> None:
        """Nothing to read: the texts are generated."""

    def preprocessor(self, source: PreprocessorSource) -> Any:
        return self._vocabulary.tokenizer(source.preprocessor, [self._sample()])

    def _sample(self) -> Document:
        """Text for a vocabulary to be trained on."""
        keys = self.names or ["0"]
        forms = (self.statement, self.question)
        facts = [form.format(key=key, answer="0") for key in keys for form in forms]
        return Document("generated text", " ".join([*self.filler, *facts]).encode())

    def encode(self, preprocessor: Any) -> TaskData:
        """Generates all sets.

        Args:
            preprocessor: a tokenizer.

        Raises:
            HadError: question, answer and a fact are longer than a text.
        """
        self._num_tokens = len(preprocessor)
        writer = self._writer(preprocessor)
        sets: dict[str, EncodedDataset] = {"": self._set(writer, self.context, None)}
        for length in self.eval_lengths:
            for depth in self.eval_depths:
                sets[f"length{length}_depth{depth}"] = self._set(writer, length, depth)
        return TaskData(self._train(writer), sets)

    def _writer(self, tokenizer: Any) -> Writer:
        def encoded(text: str) -> Tokens:
            return self._vocabulary.tokens(tokenizer, Document("generated text", text.encode()))

        return Writer(
            Pieces(encoded),
            statement=self.statement,
            question=self.question,
            names=self.names,
            answer_digits=self.answer_digits,
            facts=self.facts,
            filler=self.filler,
            shuffled=self.shuffled,
        )

    def _stages(self) -> list[Stage]:
        """The curriculum, no text longer than the context and every key with its digits."""
        given = [Stage(**stage) for stage in self.curriculum]
        return [
            Stage(each.share, min(each.length, self.context), each.key_digits or self.key_digits)
            for each in given or doubling(self.shortest, self.context)
        ]

    def _train(self, writer: Writer) -> StagedDataset:
        """Rows of texts, stage by stage; those of a stage are shared out to its shapes."""
        curriculum = Curriculum.divided(self.train_sequences, self._stages(), self.replay)
        inputs = torch.zeros(self.train_sequences, self.context, dtype=torch.int32)
        labels = torch.full_like(inputs, IGNORED)
        random = np.random.default_rng(self.seed)
        for part in curriculum.parts:
            rows = slice(part.first, part.first + part.count)
            shapes = self._shapes(writer, part.stage.length, part.stage.key_digits, self.repeats)
            shapes = shapes[: part.count]
            given = zip(
                *(each[rows].tensor_split(len(shapes)) for each in (inputs, labels)),
                shapes,
                strict=True,
            )
            for part_inputs, part_labels, shape in given:
                _fill(part_inputs, part_labels, writer, shape, random)
        return StagedDataset({"input_ids": inputs}, labels, curriculum)

    def _set(self, writer: Writer, length: int, depth: int | None) -> TokenDataset:
        random = np.random.default_rng([self.seed, 1, length, 101 if depth is None else depth])
        depths = random.random(self.eval_sequences)
        if depth is not None:
            depths[:] = depth / 100
        (shape,) = self._shapes(writer, length, self.key_digits, repeats=False)
        inputs, labels = _pair(*writer.write(shape, depths, random))
        return TokenDataset({"input_ids": inputs}, labels)

    def _shapes(
        self, writer: Writer, length: int, key_digits: int | None, repeats: bool
    ) -> list[Shape]:
        """Of texts with so many tokens and one more, which is a label only."""
        assert key_digits is not None
        needed = sum(writer.sizes(key_digits))
        if needed > length + 1:
            raise HadError(
                f"task: a fact, its question and its answer of task.answer_digits="
                f"{self.answer_digits} take {needed} tokens, longer than a text of {length} "
                "(task.context, task.shortest, task.curriculum, task.eval_lengths)"
            )
        return writer.shapes(length + 1, key_digits, repeats)

    def metrics(self) -> MetricCollection:
        return MetricCollection({"accuracy": AnswerAccuracy()})


def _fill(
    inputs: Tensor, labels: Tensor, writer: Writer, shape: Shape, random: np.random.Generator
) -> None:
    """Write texts of a shape into rows (rows, context), as many a row as fit."""
    length = shape.length - 1
    count = inputs.shape[1] // length
    size = max(1, _TOGETHER // inputs.shape[1])
    for some_inputs, some_labels in zip(inputs.split(size), labels.split(size), strict=True):
        texts = _pair(*writer.write(shape, random.random(len(some_inputs) * count), random))
        for rows, written in zip((some_inputs, some_labels), texts, strict=True):
            rows[:, : count * length] = written.reshape(len(rows), -1)


def _pair(tokens: Tokens, is_answer: Marks) -> tuple[Tensor, Tensor]:
    """Inputs and labels of texts (B, T + 1): (B, T) each; only answers are labels."""
    whole = torch.from_numpy(tokens)
    labels = whole.masked_fill(~torch.from_numpy(is_answer), IGNORED)
    return whole[:, :-1].contiguous(), labels[:, 1:].contiguous()
