"""What every backend computes, and how it says which calls it can take."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from had.attention.backends import torch_merge
from had.attention.bits import pack_signs, unpack_signs
from had.attention.divergence import AttentionTarget
from had.attention.topn import TopN


@dataclass(frozen=True)
class Apart:
    """What belongs to E exact keys that are none of a call's own, whose mask leaves them out.

    Attributes:
        value: (B, G, E, V).
        allowed: bool (B or 1, 1, 1, E); None for all.
    """

    value: Tensor
    allowed: Tensor | None


@dataclass(frozen=True)
class ExactKeys:
    """Keys that are scored in full precision and always kept; see `had.attention.topn.recent_keys`.

    Attributes:
        query: (B, H, T, D), full precision.
        key: (B, G, S, D), likewise.
        gain: factor of their dot product.
        recent: the last so many keys of a row.
        apart: None if they are the last ones of the call they are in.
    """

    query: Tensor
    key: Tensor
    gain: float
    recent: int
    apart: Apart | None = None

    @property
    def beside(self) -> Apart:
        """What belongs to keys that do lie apart."""
        assert self.apart is not None
        return self.apart


@dataclass(frozen=True)
class AttentionCall:
    """One layer's top-N attention on queries and keys that are already binarized, or a relaxation.

    Attributes:
        query: units of the queries (B, H, T, D).
        key: units of the keys (B, G, S, D), H a multiple of G.
        value: (B, G, S, V).
        n: keys a row keeps; `had.attention.topn.keys_to_keep` says how many that are.
        gain: factor of the dot product, a number or a float32 tensor broadcastable to (B, H, 1, 1).
        mask: bool broadcastable to (B, H, T, S), True = allowed; None allows all.
        bias: additive, broadcastable to (B, H, T, S); None for none.
        signs: query and key hold nothing but -1 and +1.
        weights: how kept keys weigh, a key of `had.attention.weighting.WEIGHTINGS`.
        exact: keys that are no signs to this row; None for none.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    n: TopN
    gain: Tensor | float
    mask: Tensor | None = None
    bias: Tensor | None = None
    signs: bool = False
    weights: str = "softmax"
    exact: ExactKeys | None = None


@dataclass(frozen=True)
class PackedCall:
    """One layer's top-N attention on signs stored as bits, without gradients.

    What a binary key cache hands over in decoding; see `had.attention.bits` for the layout.

    Attributes:
        query: signs of the queries, int32 (B, H, T, W) with W = ceil(head_dim / 32).
        key: signs of the keys, int32 (B, G, S, W), H a multiple of G; the words of a key are
            contiguous, other strides are free (a view into a larger buffer).
        value: (B, G, S, V), rows contiguous, other strides free; may be of an 8-bit float type.
        head_dim: signs of a query or key.
        n: keys a row keeps; `had.attention.topn.keys_to_keep` says how many that are.
        gain: factor of the dot product, a number or a float32 tensor broadcastable to (B, H, 1, 1).
        mask: bool broadcastable to (B, H, T, S), True = allowed; None allows all.
        bias: additive, broadcastable to (B, H, T, S); None for none.
        exact: keys that are no signs to this row; of all keys it may hold the last ones alone: no
            row scores what is in front of them exactly. Or they lie apart, in a call with a mask.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    head_dim: int
    n: TopN
    gain: Tensor | float
    mask: Tensor | None = None
    bias: Tensor | None = None
    exact: ExactKeys | None = None

    def unpacked(self) -> AttentionCall:
        """The same call on signs in float32."""
        if self.exact is not None and self.exact.apart is not None:
            return self._joined(self.exact, self.exact.apart).unpacked()
        query, key = (unpack_signs(words, self.head_dim) for words in (self.query, self.key))
        value = self.value.float() if self.value.element_size() == 1 else self.value
        call = AttentionCall(query, key, value, self.n, self.gain, self.mask, self.bias)
        return replace(call, signs=True, exact=self.exact and self._aligned(self.exact))

    def _joined(self, exact: ExactKeys, apart: Apart) -> PackedCall:
        """The same call, its exact keys behind all others."""
        assert self.mask is not None
        assert apart.allowed is not None
        return replace(
            self,
            key=torch.cat([self.key, pack_signs(exact.key)], dim=2),
            value=torch.cat([self.value, apart.value], dim=2),
            mask=torch.cat([self.mask, apart.allowed.expand(len(self.mask), -1, -1, -1)], dim=3),
            exact=replace(exact, apart=None),
        )

    def _aligned(self, exact: ExactKeys) -> ExactKeys:
        """The exact keys at the places of their signs; no row looks at what is in front of them."""
        missing = self.key.shape[2] - exact.key.shape[2]
        return replace(exact, key=F.pad(exact.key, (0, 0, missing, 0)))


class Backend(ABC):
    """One implementation of Hamming attention, equal to the oracle wherever `supports` says yes."""

    name: ClassVar[str]
    takes_exact_keys: ClassVar[bool] = False
    """Whether some keys of a call may be scored in full precision."""

    @abstractmethod
    def supports(self, call: AttentionCall) -> bool:
        """Whether this backend can compute the call, gradients included."""

    @abstractmethod
    def attend(self, call: AttentionCall) -> Tensor:
        """The attention output (B, H, T, V) in value's dtype."""

    def supports_packed(self, call: PackedCall) -> bool:
        """Whether this backend can compute the call from bits."""
        return False

    def attend_packed(self, call: PackedCall) -> Tensor:
        """The attention output (B, H, T, V), without gradients.

        In value's dtype, or a wider one: 8-bit floats store values, but nothing computes in them.
        """
        raise NotImplementedError(f"backend {self.name!r} does not read bits")

    def supports_part(self, call: PackedCall) -> bool:
        """Whether `attend_part` can compute the call for its first keys, however many."""
        return False

    def attend_part(self, call: PackedCall, kept_elsewhere: Tensor | int) -> tuple[Tensor, Tensor]:
        """Attention to a part of every row's keys, from bits, to be merged with that to the rest.

        Args:
            call: its `n` is that of whole rows.
            kept_elsewhere: keys that a row keeps beside these, counted among its N
                (`had.attention.topn.keys_to_keep_of_part`): a number or, of a call with a mask
                (B or 1, 1, 1, S), possibly an integer tensor (B or 1, 1, 1).

        Returns:
            Output (B, H, T, V), float32, zero where a row keeps no key. And (B, H, T, 1), float32:
            log of the sum over the kept keys of exp(gain * (2 m - head_dim)), m being their equal
            bits; -inf where there is none.
        """
        raise NotImplementedError(f"backend {self.name!r} does not attend to a part of the keys")

    def merge(self, exact: ExactKeys, far: Tensor, log_sums: Tensor) -> Tensor:
        """Attention to all keys of a row: some exact ones, and those of `attend_part`.

        Args:
            exact: of one query a sequence and head; they lie apart, and a row keeps all it may see.
            far: output of `attend_part`.
            log_sums: likewise.

        Returns:
            (B, H, 1, V) in value's dtype, float32 if that has 8 bits; zero for a row without keys.
        """
        return torch_merge.merge(exact, far, log_sums)

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


class PackedBackend(Backend):
    """A backend that reads bits alone, for decoding: it takes no other call."""

    def supports(self, call: AttentionCall) -> bool:
        return False

    def attend(self, call: AttentionCall) -> Tensor:
        raise NotImplementedError(f"backend {self.name!r} reads bits only")

    def distil(
        self, call: AttentionCall, target: AttentionTarget, real: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        raise NotImplementedError(f"backend {self.name!r} reads bits only")
