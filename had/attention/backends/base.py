"""What every backend computes, and how it says which calls it can take."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from had.attention.divergence import AttentionTarget


@dataclass(frozen=True)
class AttentionCall:
    """One layer's top-N attention on queries and keys that are already binarized, or a relaxation.

    Attributes:
        query: units of the queries (B, H, T, D).
        key: units of the keys (B, G, S, D), H a multiple of G.
        value: (B, G, S, V).
        n: keys a row keeps, an integer >= 1 or a fraction in (0, 1].
        gain: factor of the dot product, a number or a float32 tensor broadcastable to (B, H, 1, 1).
        mask: bool broadcastable to (B, H, T, S), True = allowed; None allows all.
        bias: additive, broadcastable to (B, H, T, S); None for none.
        signs: query and key hold nothing but -1 and +1.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    n: int | float
    gain: Tensor | float
    mask: Tensor | None = None
    bias: Tensor | None = None
    signs: bool = False


class Backend(ABC):
    """One implementation of Hamming attention, equal to the oracle wherever `supports` says yes."""

    name: ClassVar[str]

    @abstractmethod
    def supports(self, call: AttentionCall) -> bool:
        """Whether this backend can compute the call, gradients included."""

    @abstractmethod
    def attend(self, call: AttentionCall) -> Tensor:
        """The attention output (B, H, T, V) in value's dtype."""

    @abstractmethod
    def distil(
        self, call: AttentionCall, target: AttentionTarget, real: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The output, and the divergence from the teacher, without keeping a map for backward.

        Args:
            call: the student's attention.
            target: the teacher's queries and keys of the same layer.
            real: bool broadcastable to (B, 1, T, 1), False at padded queries.

        Returns:
            Output (B, H, T, V), and the scalar mean of KL(teacher row || student row) over heads
            and real rows (`had.attention.divergence.row_divergence`).
        """
