"""Text to text: an encoder reads a text, and a decoder writes the answer, token by token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from had.errors import HadError
from had.tasks.base import EncodedDataset, PreprocessorSource, TaskData
from had.tasks.reading import Columns, Rows, read_rows
from had.tasks.splits import fraction_problems, stratified_split
from had.tasks.text import pad, round_up, tokenize
from had.tasks.token_losses import IGNORED, AnswerAccuracy
from had.tasks.token_task import TokenTask

DECODER_STARTS: Mapping[str, str] = {"pad": "pad_token_id", "eos": "eos_token_id"}
"""What decoders begin with, and what a tokenizer calls it: T5 its padding, BART its end."""

_TEXT = ("input_ids", "attention_mask")


class TextToTextDataset(EncodedDataset):
    """Texts padded on the right, which a batch cuts to what it needs, with inputs of a decoder."""

    def prepare(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        width = round_up(int(inputs["attention_mask"].sum(1).max()))
        cut = {name: inputs[name][:, :width] for name in _TEXT}
        return {name: column.long() for name, column in {**inputs, **cut}.items()}


@dataclass(kw_only=True, eq=False)
class TextToTextTask(TokenTask):
    """A task on pairs of a text and a target, which is learned token by token.

    Attributes:
        max_length: tokens of a text; it is cut at its end.
        target_length: most tokens of a target, its end among them.
        decoder_start: the token that the model's decoder begins with: its tokenizer's "pad" (T5 and
            its kin) or "eos" (BART).
    """

    head: ClassVar[str] = "seq2seq"
    length_key: ClassVar[str] = "max_length"

    max_length: int
    target_length: int
    decoder_start: str

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.decoder_start not in DECODER_STARTS:
            known = ", ".join(DECODER_STARTS)
            problems.append(f"task.decoder_start={self.decoder_start}: one of {known}")
        for key, least in (("max_length", 8), ("target_length", 1)):
            if getattr(self, key) < least:
                problems.append(f"task.{key}={getattr(self, key)}: must be {least} or more")
        return problems

    def preprocessor(self, source: PreprocessorSource) -> Any:
        """The model's tokenizer; HadError if its decoder begins otherwise than the task says."""
        tokenizer, start = super().preprocessor(source), source.decoder_start()
        if start not in (None, self._start(tokenizer)):
            begun = tokenizer.convert_ids_to_tokens(start)
            raise HadError(
                f"task.decoder_start={self.decoder_start}: the model's decoder begins with "
                f"{begun!r}; give the one of {', '.join(DECODER_STARTS)} that this is"
            )
        return tokenizer

    def _start(self, tokenizer: Any) -> int | None:
        start: int | None = getattr(tokenizer, DECODER_STARTS[self.decoder_start])
        return start

    @property
    def positions(self) -> int:
        return self.max_length

    def pairs(
        self, texts: tuple[list[str], ...], targets: Sequence[str], tokenizer: Any
    ) -> TextToTextDataset:
        """Texts with their targets as a data set.

        Args:
            texts: one list; or two, of which the second is cut where both are too long: there must
                be room for some of it.
            targets: as many.
            tokenizer: the model's.

        Returns:
            input_ids, attention_mask (B, S); decoder_input_ids, decoder_attention_mask and, as
            labels, the targets' tokens (B, T).

        Raises:
            HadError: a target does not fit, or the tokenizer lacks a token.
        """
        if None in (tokenizer.pad_token_id, tokenizer.eos_token_id):
            raise HadError(
                "the tokenizer must have a padding token and one that ends a target, as those of "
                "encoder-decoder models have; give such a model, as model=t5"
            )
        self._num_tokens = len(tokenizer)
        decoder, labels = self._decoder(targets, tokenizer)
        return TextToTextDataset({**self._encoder(texts, tokenizer), **decoder}, labels)

    def _encoder(self, texts: tuple[list[str], ...], tokenizer: Any) -> dict[str, Tensor]:
        truncation = True if len(texts) == 1 else "only_second"
        encoded = tokenize(texts, tokenizer, self.max_length, list(_TEXT), truncation)
        width = min(round_up(max(map(len, encoded["input_ids"]))), self.max_length)
        ids = pad(encoded["input_ids"], width, tokenizer.pad_token_id, "right")
        return {
            "input_ids": ids,
            "attention_mask": pad(encoded["attention_mask"], width, 0, "right").bool(),
        }

    def _decoder(self, targets: Sequence[str], tokenizer: Any) -> tuple[dict[str, Tensor], Tensor]:
        """The decoder's inputs, each target moved one token to the right, and the targets."""
        tokens = [self.target_tokens(target, tokenizer) for target in targets]
        width = max(map(len, tokens))
        before = [[self._start(tokenizer), *target[:-1]] for target in tokens]
        inputs = {
            "decoder_input_ids": pad(before, width, tokenizer.pad_token_id, "right"),
            "decoder_attention_mask": pad([[1] * len(each) for each in tokens], width, 0, "right"),
        }
        return inputs, pad(tokens, width, IGNORED, "right")

    def target_tokens(self, target: str, tokenizer: Any) -> list[int]:
        """The tokens of a target with its end; HadError if they are too many."""
        tokens: list[int] = tokenizer(text_target=target)["input_ids"]
        end = tokenizer.eos_token_id
        tokens = tokens if tokens[-1:] == [end] else [*tokens, end]
        if len(tokens) > self.target_length:
            raise HadError(
                f"task.target_length={self.target_length}: the target {target[:40]!r} has "
                f"{len(tokens)} tokens; raise it, or shorten the target"
            )
        return tokens


@dataclass(kw_only=True, eq=False)
class PairsTask(TextToTextTask):
    """Texts and targets from the user's own files: translations, summaries, labels in words.

    Attributes:
        path: the training file: .csv, .tsv (no quoting), .jsonl or .ndjson, in UTF-8.
        eval_path: the evaluation file; null holds out `eval_fraction` of the training file.
        text: the column of texts.
        target: the column of targets.
        prefix: what every text begins with, as in "summarize: ".
        header: whether CSV and TSV files name their columns; without, columns are indices from 0.
        eval_fraction: share held out for evaluation where there is no `eval_path`.
        seed: of that split alone, so that every run of a sweep sees the same one.
    """

    path: str
    eval_path: str | None
    text: str | int
    target: str | int
    prefix: str
    header: bool
    eval_fraction: float
    seed: int
    _parts: list[tuple[list[str], list[str]]] = field(default_factory=list, init=False, repr=False)

    def problems(self) -> list[str]:
        problems = super().problems() + fraction_problems("eval_fraction", self.eval_fraction)
        if self.score != "exact_match":
            problems.append(f"task.score={self.score}: must be exact_match")
        return problems

    def read(self) -> None:
        if self._parts:
            return
        train = self._rows(self.path)
        if self.eval_path is None:
            chosen = stratified_split(torch.zeros(len(train)), self.eval_fraction, self.seed)
            self._parts = [_taken(train, rows.tolist()) for rows in chosen]
        else:
            parts = (train, self._rows(self.eval_path))
            self._parts = [_taken(part, range(len(part))) for part in parts]

    def _rows(self, path: str) -> Rows:
        rows = read_rows(
            Path(path).expanduser(), Columns([self.text], self.target), header=self.header
        )
        if "" in rows.labels:
            raise HadError(f"{rows.where(rows.labels.index(''))}: the target is empty")
        return rows

    def encode(self, preprocessor: Any) -> TaskData:
        self.read()
        train, held_out = (
            self.pairs(([self.prefix + text for text in texts],), targets, preprocessor)
            for texts, targets in self._parts
        )
        return TaskData(train, {"": held_out})

    def metrics(self) -> MetricCollection:
        """The share of targets that greedy decoding writes without a mistake."""
        return MetricCollection({"exact_match": AnswerAccuracy()})


def _taken(rows: Rows, indices: Sequence[int]) -> tuple[list[str], list[str]]:
    return [rows.texts[0][i] for i in indices], [rows.labels[i] for i in indices]
