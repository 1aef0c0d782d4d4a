"""QuALITY as text to text: question, options and article in, the letter of an option out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from had.errors import HadError
from had.tasks.base import TaskData
from had.tasks.quality import QualityTask
from had.tasks.quality_files import LETTERS, Question
from had.tasks.text_to_text import TextToTextDataset, TextToTextTask


@dataclass(kw_only=True, eq=False)
class TextToTextQualityTask(TextToTextTask, QualityTask):
    """The encoder reads everything once, the decoder writes the letter of the right option.

    The answer is the likeliest of the four letters. Scoring the texts of the options instead would
    have the encoder read the article four times, and the model compare options it has never seen
    side by side.

    Attributes:
        prompt: what the encoder reads before the article, with {question} and {options} in it.
    """

    prompt: str
    _letters: tuple[int, Tensor] | None = field(default=None, init=False, repr=False)

    def encode(self, preprocessor: Any) -> TaskData:
        self.read()
        self._letters = self._told_apart(preprocessor)
        train, held_out = (
            self._encode(part, preprocessor) for part in (self._train, self._held_out)
        )
        return TaskData(train, {"": held_out})

    def _encode(self, questions: Sequence[Question], tokenizer: Any) -> TextToTextDataset:
        asked = [self._asked(question) for question in questions]
        self.check_room(questions, asked, tokenizer, self.max_length)
        articles = [question.article for question in questions]
        targets = [LETTERS[question.answer] for question in questions]
        return self.pairs((asked, articles), targets, tokenizer)

    def _asked(self, question: Question) -> str:
        listed = zip(LETTERS, question.options, strict=True)
        options = " ".join(f"({letter}) {option}" for letter, option in listed)
        return self.prompt.format(question=question.question, options=options)

    def _told_apart(self, tokenizer: Any) -> tuple[int, Tensor]:
        """Where in their tokens the letters differ, and what is there, (OPTIONS,).

        Raises:
            HadError: the tokenizer does not tell them apart.
        """
        tokens = [self.target_tokens(letter, tokenizer) for letter in LETTERS]
        for place, column in enumerate(zip(*tokens, strict=False)):
            if len(set(column)) == len(LETTERS):
                return place, torch.tensor(column)
            if len(set(column)) > 1:
                break
        raise HadError(f"{self.name}: the tokenizer does not tell {', '.join(LETTERS)} apart")

    def choices(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        assert self._letters is not None, "call encode() first"
        place, letters = self._letters[0], self._letters[1].to(logits.device)
        right = labels[:, place, None] == letters
        return logits[:, place, letters].float(), right.int().argmax(-1)
