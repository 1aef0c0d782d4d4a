"""One layer of the binary key cache: buffers of sign words and values that grow by a quarter.

A token is copied four times on average however long the text gets, and a step copies nothing but
its own tokens. Attention is handed views into the buffers. The few keys that a student scores in
full precision are kept beside, and travel with the words as `words.exact`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from had.attention.bits import words_for
from had.attention.cache_append import append
from had.attention.cache_exact import RecentKeys
from had.errors import HadError

_LEAST_ROOM = 64  # tokens: short texts are not worth growing in small steps
_DENSE_BYTES = 2  # of a bfloat16 key or value element, in the cache that ours is compared with


class BinaryKeyLayer(CacheLayerMixin):
    """The cache of one layer that sees all earlier tokens.

    Args:
        value_dtype: what values are stored as; None for the dtype they come in.
        recent: the last keys of a token, its own included, that it needs in full precision.

    Attributes:
        keys: signs of the stored keys, int32 (B, G, S, W), a view; None before the first token.
        values: (B, G, S, V), a view; likewise.
        key_buffer: where signs are stored, (B, G, room, W); another one whenever it has grown.
        value_buffer: likewise of values, (B, G, room, V).
        end: place of the next token in them.
        exact: the keys kept in full precision.
    """

    is_sliding = False
    is_croppable = True
    supports_early_init = False

    def __init__(self, value_dtype: torch.dtype | None = None, recent: int = 0) -> None:
        super().__init__()
        self.value_dtype, self.recent = value_dtype, recent
        self.exact = RecentKeys(recent)
        self.reset()

    def reset(self) -> None:
        """Forget all tokens, and how many sequences there were."""
        self.keys = self.values = None
        self.is_initialized = False
        self.key_buffer = self.value_buffer = torch.empty(0)
        self._start = self.end = 0  # the stored tokens' place in the buffers
        self._seen = 0
        self._head_dim = 0
        self.exact.reset()

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take sizes, dtype and device from the first tokens."""
        dtype, width = self.value_dtype or value_states.dtype, value_states.shape[3]
        size = (*key_states.shape[:2], 0, words_for(key_states.shape[3]))
        self.key_buffer = key_states.new_empty(size, dtype=torch.int32)
        # New tensors: an empty view would keep the memory of all first tokens.
        self.value_buffer = value_states.new_empty((*value_states.shape[:2], 0, width), dtype=dtype)
        self._head_dim = key_states.shape[3]
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store new tokens.

        Args:
            key_states: (B, G, T, D), after any rotary embedding.
            value_states: (B, G, T, V).
            args: of other caches, unused.
            kwargs: likewise.

        Returns:
            Signs of the keys that the new tokens may see, int32 (B, G, S, W), and their values. If
            some keys are exact, the words bear them as `exact` (B, G, E, D), the last E of all.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = key_states.shape[2]
        self._make_room(new)
        append(key_states, value_states, self.key_buffer, self.value_buffer, at=self.end)
        self.end += new
        self._seen += new
        keys, values = self._expose()
        if self.recent:
            keys = keys.detach()  # not the view that stays here: a prompt's keys must not stay, too
            keys.exact = self.exact.add(key_states)  # type: ignore[attr-defined]
        return keys, values

    def _make_room(self, new: int) -> None:
        """Move the stored tokens to the front of larger buffers if `new` more do not fit."""
        stored = self.end - self._start
        if self.end + new <= self.key_buffer.shape[2]:
            return
        capacity = stored + new + max(_LEAST_ROOM, (stored + new) // 4)
        capacity += capacity % 2  # heads' keys of 64 bits begin on boundaries of 16 bytes
        self.key_buffer, self.value_buffer = (
            _moved(buffer[:, :, self._start : self.end], capacity)
            for buffer in (self.key_buffer, self.value_buffer)
        )
        self._start, self.end = 0, stored

    def advance(self) -> None:
        """Count a token that has been written to its place in the buffers."""
        self.end += 1
        self._seen += 1
        self._expose()

    def _expose(self) -> tuple[Tensor, Tensor]:
        stored = self.end - self._start
        self.keys = self.key_buffer.narrow(2, self._start, stored)
        self.values = self.value_buffer.narrow(2, self._start, stored)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Tokens seen so far."""
        return self._seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Over how many keys the next tokens' mask goes, and the first one's position."""
        return self._seen + query_length, 0

    def get_max_length(self) -> int:
        """-1: there is no limit."""
        return -1

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens, as after a rejected guess of speculative decoding.

        Args:
            tokens_to_remove: their number, negative as in transformers.

        Raises:
            ValueError: the number is positive, or exceeds what can be taken back.
        """
        if tokens_to_remove > 0:
            raise ValueError(f"crop({tokens_to_remove}): give the tokens to remove as -n")
        if not self.is_initialized:
            return
        self._check_crop(-tokens_to_remove)
        self.exact.crop(-tokens_to_remove, left=self._seen + tokens_to_remove)
        self.end += tokens_to_remove
        self._seen += tokens_to_remove
        self._expose()

    def _check_crop(self, count: int) -> None:
        if count > self._seen:
            raise ValueError(f"crop({-count}): only {self._seen} tokens are stored")

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Beam search: sequence i goes on from what was sequence beam_idx[i]."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the sequences that integer indices or a boolean mask name, in that order."""
        if self.is_initialized:
            indices = indices.to(self.key_buffer.device)
            self.key_buffer = self.key_buffer[indices]
            self.value_buffer = self.value_buffer[indices]
            self.exact.select(indices)
            self._expose()

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every sequence `repeats` times in place."""
        if self.is_initialized:
            self.batch_select_indices(torch.arange(len(self.key_buffer)).repeat_interleave(repeats))

    def memory(self, tokens: int) -> tuple[int, int]:
        """Bytes of that many tokens here and in a dense bfloat16 cache, all sequences together.

        Raises:
            HadError: no token has been seen, so that sizes are unknown.
        """
        if not self.is_initialized:
            raise HadError("the cache is empty: its sizes are known after the first token")
        batch, heads, _, width = self.value_buffer.shape
        key_bytes = self.key_buffer.shape[-1] * self.key_buffer.element_size()
        value_bytes = width * self.value_buffer.element_size()
        rows = batch * heads * self._stored_of(tokens)
        exact = batch * heads * min(self.recent, tokens) * self._head_dim * _DENSE_BYTES
        dense = rows * _DENSE_BYTES * (self._head_dim + width)
        return rows * (key_bytes + value_bytes) + exact, dense

    def _stored_of(self, tokens: int) -> int:
        """How many of `tokens` tokens are kept."""
        return tokens

    def allocated(self) -> int:
        """Bytes of the buffers, room for further tokens included."""
        return self.key_buffer.nbytes + self.value_buffer.nbytes + self.exact.nbytes


class SlidingBinaryKeyLayer(BinaryKeyLayer):
    """The cache of one layer whose tokens see a window: only what the next token sees is kept.

    Args:
        window: tokens that a token sees, itself included.
        value_dtype: as in `BinaryKeyLayer`.
        recent: likewise.

    Attributes:
        record_past: keep all tokens until the next `crop`, which may then go back behind them.
    """

    is_sliding = True

    def __init__(
        self, window: int, value_dtype: torch.dtype | None = None, recent: int = 0
    ) -> None:
        self.window = window
        self.record_past = False
        super().__init__(value_dtype, recent)

    def activate_past_recording(self) -> None:
        """As transformers' speculative decoding asks for before it guesses."""
        self.record_past = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """As of a full layer, but the result begins where the first new token's window does."""
        if not self.record_past:
            self._forget_unseen()
        visible = self._stored_of(self._seen) + key_states.shape[2]
        keys, values = super().update(key_states, value_states)
        words = keys[:, :, -visible:]
        if self.recent:
            words.exact = keys.exact[:, :, -visible:]  # type: ignore[attr-defined]
        return words, values[:, :, -visible:]

    def _forget_unseen(self) -> None:
        self._start = max(self._start, self.end - self._stored_of(self._seen))

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Over how many keys the next tokens' mask goes, and the first one's position."""
        kept = self._stored_of(self._seen)
        return kept + query_length, self._seen - kept

    def get_max_length(self) -> int:
        """The window."""
        return self.window

    def crop(self, tokens_to_remove: int) -> None:
        """As of a full layer; what was recorded for it is dropped."""
        super().crop(tokens_to_remove)
        if self.is_initialized:
            self._forget_unseen()
            self._expose()

    def _check_crop(self, count: int) -> None:
        super()._check_crop(count)
        left = self.end - self._start - count
        if left < self._stored_of(self._seen - count):
            raise ValueError(
                f"crop({-count}): the tokens before are gone, for a window keeps {self.window - 1};"
                " call activate_past_recording first"
            )

    def _stored_of(self, tokens: int) -> int:
        return min(tokens, self.window - 1)


def _moved(rows: Tensor, capacity: int) -> Tensor:
    """(B, G, S, X) at the front of a new buffer (B, G, capacity, X)."""
    batch, heads, length, width = rows.shape
    buffer = rows.new_empty(batch, heads, capacity, width)
    buffer[:, :, :length] = rows
    return buffer
