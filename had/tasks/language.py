"""Language modelling: packed sequences of tokens, each predicted from those before it."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from had.errors import HadError
from had.tasks.base import EncodedDataset, PreprocessorSource, TaskData
from had.tasks.token_losses import TokenMetrics
from had.tasks.token_task import TokenTask
from had.tasks.vocabulary import VOCABULARIES, Document, Vocabulary


class TokenDataset(EncodedDataset):
    """Sequences of one length, without padding: input_ids (B, T) int64, labels (B, T) int32."""

    def prepare(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"input_ids": inputs["input_ids"].long()}


def packed(stream: Tensor, context: int) -> TokenDataset:
    """Cuts a stream of tokens into sequences, the label of a token being the next one.

    Args:
        stream: (tokens,) int32.
        context: tokens of a sequence; what is left at the end is dropped.
    """
    count = (len(stream) - 1) // context
    inputs, labels = (stream[first:][: count * context] for first in (0, 1))
    return TokenDataset({"input_ids": inputs.view(count, context)}, labels.view(count, context))


@dataclass(kw_only=True, eq=False)
class CausalTask(TokenTask):
    """A task on sequences of tokens that a causal language model predicts.

    Attributes:
        context: tokens of a sequence.
        tokenizer: "model" for the model's own, "bytes", or "bpe" for one trained on the text.
        vocabulary: tokens of a trained tokenizer.
        cache: where trained tokenizers are kept.
    """

    head: ClassVar[str] = "causal_lm"

    context: int
    tokenizer: str
    vocabulary: int
    cache: str

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.tokenizer not in VOCABULARIES:
            problems.append(f"task.tokenizer={self.tokenizer}: one of {', '.join(VOCABULARIES)}")
        if self.vocabulary < 257:
            problems.append(f"task.vocabulary={self.vocabulary}: must be 257 (256 bytes) or more")
        if self.context < 2:
            problems.append(f"task.context={self.context}: must be 2 tokens or more")
        return problems

    @property
    def positions(self) -> int:
        return self.context

    @property
    def _vocabulary(self) -> Vocabulary:
        return VOCABULARIES[self.tokenizer](self.vocabulary, Path(self.cache))


@dataclass(kw_only=True, eq=False)
class LanguageTask(CausalTask):
    """Perplexity on held-out text.

    `score/teacher` and `score/student` are perplexities, `score/ratio` is the student's over the
    teacher's, and `score/drop` is what that is above 1 in percent: larger is worse, as everywhere.

    Attributes:
        eval_sequences: most sequences of an evaluation, evenly spaced; null for all.
    """

    plain_metrics: ClassVar[frozenset[str]] = frozenset(
        {"loss", "perplexity", "byte_perplexity", "bits_per_byte"}
    )

    eval_sequences: int | None
    _train: list[Document] = field(default_factory=list, init=False, repr=False)
    _held_out: list[Document] = field(default_factory=list, init=False, repr=False)
    _streams: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _bytes_per_token: float = field(default=1.0, init=False, repr=False)

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.score not in self.plain_metrics:
            listed = ", ".join(sorted(self.plain_metrics))
            problems.append(f"task.score={self.score}: one of {listed}")
        if self.eval_sequences is not None and self.eval_sequences < 1:
            problems.append(
                f"task.eval_sequences={self.eval_sequences}: must be 1 or more, or null"
            )
        return problems

    def read(self) -> None:
        if self._train:
            return
        self._train, self._held_out = self._documents()
        if self._vocabulary.is_text:
            for document in (*self._train, *self._held_out):
                document.text  # noqa: B018  (refuses what is no text before any weights are read)

    @abstractmethod
    def _documents(self) -> tuple[list[Document], list[Document]]:
        """Documents for training and for evaluation, neither empty."""

    def preprocessor(self, source: PreprocessorSource) -> Any:
        self.read()
        return self._vocabulary.tokenizer(source.preprocessor, self._train)

    def encode(self, preprocessor: Any) -> TaskData:
        """Both parts as packed sequences.

        Args:
            preprocessor: a tokenizer.

        Raises:
            HadError: a part has too few tokens for one sequence.
        """
        self.read()
        self._num_tokens = len(preprocessor)
        train = packed(self._stream(preprocessor, self._train, "training"), self.context)
        stream = self._stream(preprocessor, self._held_out, "evaluation")
        size = sum(len(document.content) for document in self._held_out)
        self._bytes_per_token = size / len(stream)
        evaluation = packed(stream, self.context)
        return TaskData(train, {"": evenly_spaced(evaluation, self.eval_sequences)})

    def _stream(self, tokenizer: Any, documents: Sequence[Document], part: str) -> Tensor:
        if part not in self._streams:  # another context cuts up the same tokens
            self._streams[part] = torch.from_numpy(self._vocabulary.ended(tokenizer, documents))
        stream = self._streams[part]
        if len(stream) <= self.context:
            raise HadError(
                f"the {part} text has {len(stream)} tokens, too few for one sequence of "
                f"task.context={self.context}; lower it, or give more text"
            )
        return stream

    def metrics(self) -> MetricCollection:
        return MetricCollection({"tokens": TokenMetrics(self._bytes_per_token)})

    def points(self, metrics: dict[str, float]) -> float:
        """The score as it is: a perplexity or a loss has no points of 100."""
        return float(metrics[self.score])

    def scores(self, teacher: dict[str, float], student: dict[str, float]) -> dict[str, float]:
        ratio = self.points(student) / self.points(teacher)
        found = super().scores(teacher, student)
        return {**found, "score/ratio": ratio, "score/drop": 100.0 * (ratio - 1.0)}


def evenly_spaced(data: TokenDataset, most: int | None) -> TokenDataset:
    """At most so many sequences, from all over the text."""
    if most is None or len(data) <= most:
        return data
    rows = torch.linspace(0, len(data) - 1, most).long()
    return TokenDataset({"input_ids": data.inputs["input_ids"][rows]}, data.labels[rows])
