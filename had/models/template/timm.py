"""Hamming attention in a Vision Transformer of the timm library, inside transformers' wrapper."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.attention import Attention
from torch import Tensor

from had.models.template.attention import HammingCore


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
        output = self.core(self.q_norm(query), self.k_norm(key), value, mask, bias, self.scale)
        output = self.norm(output.transpose(1, 2).reshape(batch, length, -1))
        if getattr(self, "gate", None) is not None:
            output = output * self.gate(x).sigmoid()
        return self.proj_drop(self.proj(output))


class HammingModel:
    """Puts Hamming attention in charge of every attention layer while a model is built."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        for place in config.had["layers"]:
            layer = self.timm_model.get_submodule(place["name"])
            layer.__class__ = HammingAttention
            layer.core = HammingCore(config.had, place["heads"], place["kv_heads"])

    def set_attn_implementation(self, *args: Any, **kwargs: Any) -> None:
        """Refused: the weights were trained for Hamming attention and make no sense without."""
        raise ValueError(f"{type(self).__name__} has Hamming attention and no other")
