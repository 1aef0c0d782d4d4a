"""A binary key cache whose tensors stay in their places while one token after another is added.

CUDA graphs need that. The buffers are those of a `BinaryKeyCache`; where the next token goes is a
number on the device, and attention is handed all the room there is, with a mask.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from had.attention.backends.base import Apart
from had.attention.bits import pack_signs
from had.attention.cache_append import within
from had.attention.cache_layers import BinaryKeyLayer


class NotFixed(RuntimeError):
    """A step asks for what has no fixed place."""


class Places:
    """Where the next token goes, and what it sees.

    Args:
        batch: sequences.
        room: tokens that the buffers of every layer hold.
        recent: last keys that are exact; 0 for none.
        device: of the cache.

    Attributes:
        next: int64 (1,), the token's place in the buffers.
        seen: bool (B, 1, 1, room): keys that it may see, its own included.
        mask: the same without the exact keys; from `look`, as what follows.
        recent: int64 (recent,): places of the exact keys.
        allowed: bool (B, 1, 1, recent): those of them that it may see.
    """

    def __init__(self, batch: int, room: int, recent: int, device: torch.device) -> None:
        self.next = torch.zeros(1, dtype=torch.int64, device=device)
        self.seen = torch.zeros(batch, 1, 1, room, dtype=torch.bool, device=device)
        self._all = torch.arange(room, device=device)
        self._back = torch.arange(1 - recent, 1, device=device)

    def look(self) -> None:
        """Work out what `next` and `seen` mean, with operations on the device alone."""
        self.recent = self.next + self._back
        self.allowed = self.seen.index_select(3, self.recent)
        self.mask = self.seen & (self._all <= self.next - len(self._back))


class FixedLayer(CacheLayerMixin):
    """One layer: a new token is written where `places` say, and all the room is handed out.

    Args:
        layer: that the buffers belong to; it has room for the token, and if keys are exact, as many
            tokens as these.
        places: shared by all layers.
    """

    def __init__(self, layer: BinaryKeyLayer, places: Places) -> None:
        super().__init__()
        if layer.recent:
            layer.exact.settle()
        self._words, self._values, self._places = layer.key_buffer, layer.value_buffer, places
        self._exact, self._exact_keys = layer.exact, layer.exact.buffer
        self.is_initialized = True
        # A weight of zero times what happens to be in empty room need not be zero.
        _bytes(self._values)[:, :, layer.end :] = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """The buffers are there."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one new token a sequence; arguments and results are those of `BinaryKeyLayer`.

        All room is handed out, and exact keys lie apart (`had.attention.backends.base.Apart`).
        """
        places = self._places
        self._words.index_copy_(2, places.next, pack_signs(key_states))
        new = _bytes(within(value_states, self._values.dtype).to(self._values.dtype))
        _bytes(self._values).index_copy_(2, places.next, new)
        if not self._exact.recent:
            return self._words, self._values
        words: Any = self._words.detach()
        words.exact = self._exact.roll(key_states)
        values = _bytes(self._values).index_select(2, places.recent).view(self._values.dtype)
        words.apart = Apart(values, places.allowed)
        return words, self._values

    def holds(self, layer: BinaryKeyLayer) -> bool:
        """Whether the layer's buffers are those that this one writes to, and ready for it."""
        return (
            self._words is layer.key_buffer
            and self._values is layer.value_buffer
            and self._exact_keys is layer.exact.buffer
            and layer.exact.count == layer.recent
        )

    def get_seq_length(self) -> int:
        """Unknown here.

        Raises:
            NotFixed: always. A graph would keep the number for ever.
        """
        raise NotFixed("the length of a fixed cache is known to its places alone")

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Over how many keys the mask goes, and the first one's position."""
        return self._words.shape[2], 0

    def get_max_length(self) -> int:
        """All the room."""
        return self._words.shape[2]


class FixedCache(Cache):
    """All layers of a `BinaryKeyCache`, for steps of one token a sequence.

    Args:
        layers: its layers, none of which sees a window only.
    """

    def __init__(self, layers: list[BinaryKeyLayer]) -> None:
        first = layers[0].key_buffer
        self.places = Places(len(first), first.shape[2], layers[0].recent, first.device)
        self._fixed = [FixedLayer(layer, self.places) for layer in layers]
        super().__init__(layers=list(self._fixed))

    def holds(self, layers: list[BinaryKeyLayer]) -> bool:
        """Whether the buffers are still those of these layers, and ready for a token."""
        return all(mine.holds(theirs) for mine, theirs in zip(self._fixed, layers, strict=True))


def _bytes(values: Tensor) -> Tensor:
    """Values of 8 bits as integers, which every operation takes; wider ones as they are."""
    return values.view(torch.uint8) if values.element_size() == 1 else values
