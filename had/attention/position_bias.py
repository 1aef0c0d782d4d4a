"""A learned bias for every head and every distance between two patches of an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_SPREAD = 0.02  # standard deviation at the start (arXiv 2106.08254)


class RelativePositionBias(nn.Module):
    """The relative-position bias of BEiT (arXiv 2106.08254, after arXiv 1910.10683).

    Patches whose rows and columns differ by the same numbers share an entry of their head. Tokens
    before the patches, the class token and its like, have no place in the image: there is one
    entry for their view of patches, one for the patches' view of them, and one among themselves.

    Attributes:
        table: (heads * entries,): flat, for vectors are not decayed by the optimizer.
    """

    places: Tensor

    def __init__(self, heads: int, grid: tuple[int, int], prefix_tokens: int) -> None:
        """Makes the bias of one layer.

        Args:
            heads: of the layer.
            grid: rows and columns of patches.
            prefix_tokens: tokens before the patches.
        """
        super().__init__()
        self.heads = heads
        self.register_buffer("places", entries(grid, prefix_tokens), persistent=False)
        self.table = nn.Parameter(torch.empty(heads * (int(self.places.max()) + 1)))
        nn.init.trunc_normal_(self.table, std=_SPREAD)

    def forward(self) -> Tensor:
        """(1, heads, T, T) in the table's dtype, T the prefix tokens and the patches."""
        return self.table.view(1, self.heads, -1)[:, :, self.places]

    def extra_repr(self) -> str:
        return f"heads={self.heads}, tokens={len(self.places)}"


def wants_position_bias(core: nn.Module) -> bool:
    """Whether a student layer's options ask for such a bias."""
    return bool(getattr(getattr(core, "options", None), "position_bias", False))


def entries(grid: tuple[int, int], prefix_tokens: int) -> Tensor:
    """Which entry of a head's table each pair of tokens uses, int64 (T, T), numbered from 0."""
    rows, columns = grid
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    down = (row.flatten()[:, None] - row.flatten()) + rows - 1
    right = (column.flatten()[:, None] - column.flatten()) + columns - 1
    patches = down * (2 * columns - 1) + right
    distances = (2 * rows - 1) * (2 * columns - 1)
    if not prefix_tokens:
        return patches
    length = prefix_tokens + rows * columns
    places = torch.full((length, length), distances + 2)
    places[:prefix_tokens, prefix_tokens:] = distances
    places[prefix_tokens:, :prefix_tokens] = distances + 1
    places[prefix_tokens:, prefix_tokens:] = patches
    return places
