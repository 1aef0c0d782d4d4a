"""Hamming attention in a Vision Transformer of the timm library, inside transformers' wrapper."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.attention import Attention
from torch import Tensor, nn

from had.models.template.attention import HammingCore


class RelativePositionBias(nn.Module):
    """A learned bias for every head and every distance between two patches of a grid (BEiT's).

    Args:
        heads: of the layer.
        grid: rows and columns of patches.
        prefix_tokens: before the patches: one entry for their view of patches, one for the
            patches' view of them, one among themselves.
    """

    def __init__(self, heads: int, grid: tuple[int, int], prefix_tokens: int) -> None:
        super().__init__()
        self.heads, self.grid, self.prefix_tokens = heads, grid, prefix_tokens
        distances = (2 * grid[0] - 1) * (2 * grid[1] - 1)
        self.table = nn.Parameter(torch.zeros(heads * (distances + 3 * bool(prefix_tokens))))

    def forward(self) -> Tensor:
        """(1, heads, T, T), T the prefix tokens and the patches."""
        return self.table.view(1, self.heads, -1)[:, :, self.places().to(self.table.device)]

    def places(self) -> Tensor:
        """Which entry of a head's table each pair of tokens uses, (T, T)."""
        (rows, columns), prefix = self.grid, self.prefix_tokens
        row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        down = row.flatten()[:, None] - row.flatten() + rows - 1
        right = column.flatten()[:, None] - column.flatten() + columns - 1
        distances = (2 * rows - 1) * (2 * columns - 1)
        length = prefix + rows * columns
        places = torch.full((length, length), distances + 2)
        places[:prefix, prefix:] = distances
        places[prefix:, :prefix] = distances + 1
        places[prefix:, prefix:] = down * (2 * columns - 1) + right
        return places


class HammingAttention(Attention):
    """timm's multi-head attention whose softmax attention is done by the child `core`."""

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """(B, T, dim) to (B, T, dim_out); attn_mask is boolean (True = allowed) or additive."""
        batch, length, _ = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mask = bias = None
        if attn_mask is not None:
            mask, bias = (attn_mask, None) if attn_mask.dtype == torch.bool else (None, attn_mask)
        if is_causal:
            causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
            mask = causal if mask is None else mask & causal
        if self.position_bias is not None:
            position = self.position_bias()
            bias = position if bias is None else bias + position
        output = self.core(self.q_norm(query), self.k_norm(key), value, mask, bias, self.scale)
        output = self.norm(output.transpose(1, 2).reshape(batch, length, -1))
        if getattr(self, "gate", None) is not None:
            output = output * self.gate(x).sigmoid()
        return self.proj_drop(self.proj(output))


class HammingModel:
    """Puts Hamming attention in charge of every attention layer while a model is built."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        model = self.timm_model
        for place in config.had["layers"]:
            layer = model.get_submodule(place["name"])
            layer.__class__ = HammingAttention
            layer.position_bias = None
            layer.core = HammingCore(config.had, place["heads"], place["kv_heads"])
            if config.had["position_bias"]:
                grid, prefix = model.patch_embed.grid_size, model.num_prefix_tokens
                layer.position_bias = RelativePositionBias(place["heads"], tuple(grid), prefix)

    def set_attn_implementation(self, *args: Any, **kwargs: Any) -> None:
        """Refused: the weights were trained for Hamming attention and make no sense without."""
        raise ValueError(f"{type(self).__name__} has Hamming attention and no other")
