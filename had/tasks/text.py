"""Sentences and pairs of sentences, from strings to padded tensors."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from had.errors import HadError
from had.tasks.base import Batch, EncodedDataset, TaskData
from had.tasks.mixing import MixingPlan, splice
from had.tasks.objectives import Objective
from had.tasks.reading import Rows
from had.tasks.splits import stratified_split
from had.tasks.supervised import SupervisedTask

logger = logging.getLogger(__name__)

_CHUNK = 4096  # texts a tokenizer call: enough to keep its threads busy, little to hold
_MULTIPLE = 32  # of padded lengths: few enough shapes that each can be compiled or captured

_STORED = {"input_ids": torch.int32, "attention_mask": torch.bool, "token_type_ids": torch.uint8}


@dataclass(frozen=True)
class LabelledText:
    """Texts as read, with their labels encoded.

    Attributes:
        texts: one list for each text column.
        labels: (examples,) int64 classes or float32 values.
    """

    texts: tuple[list[str], ...]
    labels: Tensor

    def take(self, indices: Tensor) -> "LabelledText":
        chosen = indices.tolist()
        texts = tuple([column[i] for i in chosen] for column in self.texts)
        return LabelledText(texts, self.labels[indices])


class FixedTextDataset(EncodedDataset):
    """Token sequences, every batch as wide as what is stored: for fixed shapes."""

    def prepare(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: column.long() for name, column in inputs.items()}


class TextDataset(FixedTextDataset):
    """Token sequences padded on the right; a batch is as wide as its longest one needs."""

    def prepare(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        width = round_up(int(inputs["attention_mask"].sum(1).max()))
        return super().prepare({name: column[:, :width] for name, column in inputs.items()})


class LeftPaddedTextDataset(FixedTextDataset):
    """As `TextDataset`, for tokenizers that pad on the left."""

    def prepare(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        width = round_up(int(inputs["attention_mask"].sum(1).max()))
        return super().prepare({name: column[:, -width:] for name, column in inputs.items()})


_TRIMMED: Mapping[str, type[EncodedDataset]] = {
    "right": TextDataset,
    "left": LeftPaddedTextDataset,
}


@dataclass(frozen=True)
class Padding:
    """How wide token tensors are.

    Attributes:
        width: (longest sequence, max_length) to columns stored.
        dataset: padding side to the data set class that cuts batches from them.
    """

    width: Callable[[int, int], int]
    dataset: Mapping[str, type[EncodedDataset]]


PADDINGS: Mapping[str, Padding] = {
    "longest": Padding(lambda longest, limit: min(round_up(longest), limit), _TRIMMED),
    "max_length": Padding(lambda longest, limit: limit, dict.fromkeys(_TRIMMED, FixedTextDataset)),
}


def round_up(length: int) -> int:
    """The width that a batch gets whose longest example has so many tokens."""
    return -(-length // _MULTIPLE) * _MULTIPLE


def encode_text(
    text: LabelledText, tokenizer: Any, *, max_length: int, padding: Padding
) -> EncodedDataset:
    """Tokenizes single texts or pairs, cut to max_length tokens (pairs from the longer side).

    Args:
        text: the examples.
        tokenizer: a transformers tokenizer.
        max_length: most tokens kept of an example, special tokens included.
        padding: one of `PADDINGS`.

    Returns:
        A data set with input_ids and attention_mask, and token_type_ids where the model takes
        them; int64 (batch, tokens) in its batches.

    Raises:
        HadError: the tokenizer has no padding token, or its model cannot take max_length tokens.
    """
    _check_tokenizer(tokenizer, max_length)
    names = [name for name in _STORED if name in {*tokenizer.model_input_names, "attention_mask"}]
    encoded = tokenize(text.texts, tokenizer, max_length, names)
    longest = max(len(tokens) for tokens in encoded["input_ids"])
    width, side = padding.width(longest, max_length), tokenizer.padding_side
    values = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    inputs = {
        name: pad(encoded[name], width, values.get(name, 0), side).to(_STORED[name])
        for name in names
    }
    return padding.dataset[side](inputs, text.labels)


def _check_tokenizer(tokenizer: Any, max_length: int) -> None:
    if tokenizer.pad_token_id is None:
        raise HadError(
            "the tokenizer has no padding token, which batches need; set its pad_token "
            "(and the model's pad_token_id), for instance to the end-of-text token"
        )
    if max_length > tokenizer.model_max_length:
        raise HadError(
            f"task.max_length={max_length}: the model takes {tokenizer.model_max_length} tokens"
        )


def tokenize(
    texts: tuple[list[str], ...],
    tokenizer: Any,
    max_length: int,
    names: list[str],
    truncation: bool | str = True,
) -> dict[str, list[list[int]]]:
    """Tokens and what belongs to them, unpadded, by the names that are asked for.

    Args:
        texts: one list for each text column.
        tokenizer: of transformers.
        max_length: most tokens kept of an example.
        names: of what the tokenizer gives.
        truncation: what is cut, as the tokenizer calls it.
    """
    encoded: dict[str, list[list[int]]] = {name: [] for name in names}
    for chunk in _chunks(texts):
        result = tokenizer(
            *chunk,
            truncation=truncation,
            max_length=max_length,
            return_attention_mask=True,
            return_token_type_ids="token_type_ids" in names,
        )
        for name in names:
            encoded[name] += result[name]
    return encoded


def _chunks(texts: tuple[list[str], ...]) -> Iterator[tuple[list[str], ...]]:
    for start in range(0, len(texts[0]), _CHUNK):
        yield tuple(column[start : start + _CHUNK] for column in texts)


def pad(sequences: list[list[int]], width: int, value: int, side: str) -> Tensor:
    """Stacks sequences of different lengths: (sequences, width) int32, filled up with `value`."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    flat = torch.tensor([item for sequence in sequences for item in sequence], dtype=torch.int32)
    from_start = torch.arange(width).expand(len(sequences), width)
    place = {"right": from_start, "left": width - 1 - from_start}[side]
    padded = torch.full(from_start.shape, value, dtype=torch.int32)
    padded[place < lengths[:, None]] = flat  # a mask is filled row by row, left to right
    return padded


@dataclass(kw_only=True, eq=False)
class TextTask(SupervisedTask):
    """A task on sentences or pairs of sentences.

    Attributes:
        max_length: most tokens of an example.
        padding: "longest" trims every batch to its longest example; "max_length" gives every
            batch the same shape.
    """

    max_length: int
    padding: str
    _train: LabelledText | None = field(default=None, init=False, repr=False)
    _evaluation: dict[str, LabelledText] = field(default_factory=dict, init=False, repr=False)
    _side: str = field(default="right", init=False, repr=False)

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.padding not in PADDINGS:
            problems.append(f"task.padding={self.padding}: one of {', '.join(PADDINGS)}")
        if self.max_length < 8:
            problems.append(f"task.max_length={self.max_length}: must be 8 tokens or more")
        return problems

    def encode(self, preprocessor: Any) -> TaskData:
        self.read()
        assert self._train is not None
        self._side = preprocessor.padding_side
        evaluation = {
            name: self._encode(text, preprocessor) for name, text in self._evaluation.items()
        }
        return TaskData(self._encode(self._train, preprocessor), evaluation)

    def mix(self, batch: Batch, plan: MixingPlan) -> Batch:
        return {"inputs": splice(batch["inputs"], plan, self._side)}

    def _encode(self, text: LabelledText, tokenizer: Any) -> EncodedDataset:
        padding = PADDINGS[self.padding]
        return encode_text(text, tokenizer, max_length=self.max_length, padding=padding)

    def _keep(self, objective: Objective, train: Rows, evaluation: dict[str, Rows]) -> None:
        """Encodes and keeps separate training and evaluation rows."""
        self._train = LabelledText(train.texts, objective.encode(train))
        self._evaluation = {
            name: LabelledText(rows.texts, objective.encode(rows))
            for name, rows in evaluation.items()
        }
        for rows in (train, *evaluation.values()):
            logger.info("%s: %d rows", rows.source, len(rows))

    def _keep_split(
        self, objective: Objective, rows: Rows, eval_fraction: float, seed: int
    ) -> None:
        """Encodes rows and keeps them divided into training and evaluation at random."""
        text = LabelledText(rows.texts, objective.encode(rows))
        strata = objective.strata(text.labels)
        train, evaluation = stratified_split(strata, eval_fraction, seed)
        self._train, self._evaluation = text.take(train), {"": text.take(evaluation)}
        logger.info(
            "%s: %d rows for training, %d held out", rows.source, len(train), len(evaluation)
        )
