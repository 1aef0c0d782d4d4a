"""The last keys of a cache's layer in full precision, beside the signs of all."""

from __future__ import annotations

import torch
from torch import Tensor

_TAKEN_BACK = 64  # tokens that may be taken back at a time
_ROOM = 64  # tokens that are added before any key is moved


class RecentKeys:
    """What the next tokens score exactly, with room behind it: most steps copy their own key alone.

    Args:
        recent: the last keys of a token, its own included, that it needs; 0 keeps none.

    Attributes:
        buffer: the keys, (B, G, room, D), the first `count` of them filled.
    """

    def __init__(self, recent: int) -> None:
        self.recent = recent
        self.reset()

    def reset(self) -> None:
        """Forget all keys, and how many sequences there were."""
        self.buffer = torch.empty(0)
        self.count = 0

    def add(self, key: Tensor) -> Tensor:
        """Take the keys of new tokens (B, G, T, D).

        Returns:
            The keys that these tokens score exactly, the last E of all, (B, G, E, D): a view to be
            used before more are added.
        """
        new, seen = key.shape[2], self.recent - 1 + key.shape[2]
        if not self.count:
            self.buffer = key.new_empty((*key.shape[:2], 0, key.shape[3]))
        if self.count + new > self.buffer.shape[2]:
            known = torch.cat([self.buffer.narrow(2, 0, self.count), key], dim=2)
            self._keep(known, self.recent - 1 + min(new, _TAKEN_BACK))
            return known[:, :, -seen:]
        self.buffer.narrow(2, self.count, new).copy_(key)
        self.count += new
        first = max(0, self.count - seen)
        return self.buffer.narrow(2, first, self.count - first)

    def _keep(self, known: Tensor, count: int) -> None:
        """The last `count` of these keys, if there are as many, at the front of a new buffer."""
        batch, heads, length, width = known.shape
        self.count = min(count, length)
        self.buffer = known.new_empty(batch, heads, self.count + _ROOM, width)
        self.buffer[:, :, : self.count] = known[:, :, length - self.count :]

    def settle(self) -> None:
        """Let the buffer be the last `recent` keys, of which there are as many, without room."""
        self._keep(self.buffer.narrow(2, 0, self.count), self.recent)
        self.buffer = self.buffer[:, :, : self.count].contiguous()

    def roll(self, key: Tensor) -> Tensor:
        """Take a key (B, G, 1, D) for the first one of a settled buffer, which stays in its place.

        Returns:
            The buffer, (B, G, recent, D).
        """
        return self.buffer.copy_(torch.cat([self.buffer[:, :, 1:], key], dim=2))

    def crop(self, count: int, left: int) -> None:
        """Forget the last keys.

        Args:
            count: their number.
            left: tokens of the text that remain.

        Raises:
            ValueError: those that the next token needs are gone.
        """
        if self.recent and self.count - count < min(self.recent - 1, left):
            raise ValueError(
                f"crop({-count}): the exact keys of the tokens before are gone; take back at most "
                f"{_TAKEN_BACK} tokens, and none from before the last call"
            )
        self.count = max(0, self.count - count)

    def select(self, indices: Tensor) -> None:
        """Keep the sequences that integer indices or a boolean mask name, in that order."""
        if self.count:
            self.buffer = self.buffer[indices]

    @property
    def nbytes(self) -> int:
        return self.buffer.nbytes
