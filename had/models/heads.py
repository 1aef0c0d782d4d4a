"""What a task wants on top of a transformers model: a class of theirs for each head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForMultipleChoice,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
)

from had.errors import HadError

# Vocabularies are padded to sizes that GPUs like; at most by so many tokens or this share of them.
_PADDING = 128
_PADDING_SHARE = 0.02


@dataclass(frozen=True)
class Head(ABC):
    """A kind of output.

    Attributes:
        auto: the Auto class of transformers that builds models with it.
    """

    auto: Any

    def auto_for(self, config: PretrainedConfig) -> Any:
        """The Auto class for a model's configuration."""
        return self.auto

    @abstractmethod
    def fit(
        self, config: PretrainedConfig, num_outputs: int, label_names: list[str], fresh: bool
    ) -> None:
        """Write the task's sizes into a model's configuration, in place.

        Args:
            config: of the model.
            num_outputs: width of the output.
            label_names: of classes, or empty.
            fresh: whether the model gets new weights.

        Raises:
            HadError: trained weights do not fit.
        """


class ClassificationHead(Head):
    """Logits of the whole sequence or image: classes, or one number."""

    def fit(
        self, config: PretrainedConfig, num_outputs: int, label_names: list[str], fresh: bool
    ) -> None:
        config.num_labels = num_outputs
        if len(label_names) == num_outputs:
            config.id2label = dict(enumerate(label_names))
            config.label2id = {name: index for index, name in enumerate(label_names)}


class ChoiceHead(ClassificationHead):
    """One number a sequence: the head that a model of multiple choice has, else a regression's."""

    def auto_for(self, config: PretrainedConfig) -> Any:
        trained = config.architectures or [""]
        return AutoModelForMultipleChoice if is_multiple_choice(trained[0]) else self.auto


class LanguageModelHead(Head):
    """Logits of the next token at every position, of a decoder alone or with an encoder."""

    def fit(
        self, config: PretrainedConfig, num_outputs: int, label_names: list[str], fresh: bool
    ) -> None:
        if fresh:
            config.vocab_size = num_outputs
            return
        padding = max(_PADDING, _PADDING_SHARE * config.vocab_size)
        if not 0 <= config.vocab_size - num_outputs <= padding:
            raise HadError(
                f"made for {config.vocab_size} tokens, the task's tokenizer has {num_outputs}; "
                "give the tokenizer it was trained with (task.tokenizer=model if it is its own)"
            )


def is_multiple_choice(kind: str) -> bool:
    """Whether a class of transformers takes its sequences as choices, by its name."""
    return kind.endswith("ForMultipleChoice")


HEADS: dict[tuple[str, str], Head] = {
    ("text", "classification"): ClassificationHead(AutoModelForSequenceClassification),
    ("text", "choice"): ChoiceHead(AutoModelForSequenceClassification),
    ("image", "classification"): ClassificationHead(AutoModelForImageClassification),
    ("text", "causal_lm"): LanguageModelHead(AutoModelForCausalLM),
    ("text", "seq2seq"): LanguageModelHead(AutoModelForSeq2SeqLM),
}
"""By the model's modality and the head's name."""
