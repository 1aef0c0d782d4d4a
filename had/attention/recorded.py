"""The teacher's attention: full precision, its queries and keys remembered."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from had.attention.divergence import AttentionTarget
from had.attention.options import AttentionGeometry


class RecordedAttention(nn.Module):
    """A teacher layer's full-precision attention that remembers its queries and keys.

    Attributes:
        record: queries and keys of the last forward; whoever takes them sets it back to None.
    """

    def __init__(self, geometry: AttentionGeometry) -> None:
        super().__init__()
        self.geometry = geometry
        self.record: AttentionTarget | None = None

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        scale: float | None = None,
        dropout: float = 0.0,
    ) -> Tensor:
        """Scaled dot-product attention; arguments as those of `HammingAttention.forward`."""
        scale = self.geometry.head_dim**-0.5 if scale is None else scale
        self.record = AttentionTarget(query.detach(), key.detach(), scale, bias)
        return full_precision_attention(
            query, key, value, mask=mask, bias=bias, scale=scale, dropout=dropout
        )


def full_precision_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None,
    bias: Tensor | None,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """PyTorch's fused attention with a boolean mask and an additive bias; (B, H, T, V)."""
    if bias is not None and mask is not None:
        bias = bias.masked_fill(~mask, torch.finfo(bias.dtype).min)
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask if bias is None else bias,
        dropout_p=dropout,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def recorded_layers(model: nn.Module) -> list[RecordedAttention]:
    """The teacher's attention modules in the order of the model's layers."""
    return [module for module in model.modules() if isinstance(module, RecordedAttention)]
