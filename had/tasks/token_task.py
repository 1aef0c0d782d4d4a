"""What all tasks have in common whose outputs are tokens."""

from dataclasses import dataclass, field

from torch import Tensor

from had.tasks.base import Task
from had.tasks.token_losses import IGNORED, token_cross_entropy, token_divergence


@dataclass(kw_only=True, eq=False)
class TokenTask(Task):
    """A task with logits (B, T, V) and labels (B, T), `IGNORED` where nothing is predicted.

    `encode` sets the size of the vocabulary.
    """

    _num_tokens: int | None = field(default=None, init=False, repr=False)

    @property
    def num_outputs(self) -> int:
        assert self._num_tokens is not None, "call encode() first"
        return self._num_tokens

    @property
    def label_names(self) -> list[str]:
        return []

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return token_cross_entropy(logits, labels)

    def loss_count(self, labels: Tensor) -> Tensor | int:
        """The predicted tokens, of which examples have different numbers."""
        return self.output_count(labels)

    def output_count(self, labels: Tensor) -> Tensor | int:
        """The predicted tokens, whatever `loss` may be a mean over."""
        return (labels != IGNORED).sum()

    def output_loss(self, student: Tensor, teacher: Tensor, labels: Tensor | None) -> Tensor:
        """The divergence where a token is predicted: the teacher's other outputs mean nothing."""
        return token_divergence(student, teacher, labels)
