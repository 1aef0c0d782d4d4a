"""Adapter to timm: an attention layer that hands queries, keys and values to its core module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.layers.attention import Attention
from torch import Tensor, nn

from had.attention.options import AttentionGeometry
from had.attention.position_bias import RelativePositionBias, wants_position_bias
from had.errors import HadError


class CoreAttention(Attention):
    """timm's multi-head attention whose softmax attention is done by the child module `core`.

    It can be given to timm as `attn_layer`, or take the place of an existing layer (`from_layer`).
    Parameters and state-dict keys of the layer itself are timm's own.

    Attributes:
        core: attends.
        position_bias: returns what is added to the scores, (1, H, T, T); None for nothing.
    """

    core: nn.Module
    position_bias: nn.Module | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.position_bias = None

    @classmethod
    def from_layer(cls, layer: Attention, core: nn.Module) -> CoreAttention:
        """The same layer, its submodules shared, with `core` attached."""
        new = cls.__new__(cls)
        nn.Module.__init__(new)
        new.__dict__.update({k: v for k, v in layer.__dict__.items() if k not in new.__dict__})
        for name, child in layer.named_children():
            setattr(new, name, child)
        new.gate = getattr(layer, "gate", None)
        new.core, new.position_bias = core, None
        return new.train(layer.training)

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """(B, T, dim) to (B, T, dim_out); attn_mask is boolean (True = allowed) or additive."""
        batch, length, _ = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mask, bias = _mask_and_bias(attn_mask, is_causal, length, x.device)
        if self.position_bias is not None:
            position = self.position_bias()
            bias = position if bias is None else bias + position
        output = self.core(
            self.q_norm(query),
            self.k_norm(key),
            value,
            mask=mask,
            bias=bias,
            scale=self.scale,
            dropout=self.attn_drop.p if self.training else 0.0,
        )
        output = self.norm(output.transpose(1, 2).reshape(batch, length, -1))
        if self.gate is not None:
            output = output * self.gate(x).sigmoid()
        return self.proj_drop(self.proj(output))


def _mask_and_bias(
    attn_mask: Tensor | None, is_causal: bool, length: int, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """timm's one mask argument as a boolean mask and an additive bias."""
    mask = bias = None
    if attn_mask is not None:
        mask, bias = (attn_mask, None) if attn_mask.dtype == torch.bool else (None, attn_mask)
    if is_causal:
        causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
        mask = causal if mask is None else mask & causal
    return mask, bias


def attach(model: nn.Module, build: Callable[[AttentionGeometry], nn.Module]) -> None:
    """Put `build(geometry)` as core into every attention layer of a timm model, in place.

    Raises:
        HadError: a layer cannot be converted; it is named, and nothing has been changed.
    """
    for geometry in find_layers(model):
        parent, _, child = geometry.name.rpartition(".")
        layer = model.get_submodule(geometry.name)
        assert isinstance(layer, Attention)
        core = build(geometry).to(layer.qkv.weight.device).train(layer.training)
        new = CoreAttention.from_layer(layer, core)
        if wants_position_bias(core):
            new.position_bias = make_position_bias(model, geometry).to(layer.qkv.weight.device)
        setattr(model.get_submodule(parent), child, new)


def make_position_bias(model: nn.Module, geometry: AttentionGeometry) -> RelativePositionBias:
    """The bias of one layer, for the patches of its model.

    Raises:
        HadError: the model's tokens are not a grid of patches of a fixed size.
    """
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    prefix = getattr(model, "num_prefix_tokens", None)
    if grid is None or not isinstance(prefix, int):
        raise HadError(
            f"{type(model).__name__} has no fixed grid of patches; set position_bias to false"
        )
    return RelativePositionBias(geometry.heads, tuple(grid), prefix)


def find_layers(model: nn.Module) -> list[AttentionGeometry]:
    """All attention layers of the model, in order.

    Raises:
        HadError: an attention layer is not timm's plain multi-head attention, or there is none.
    """
    found = []
    for name, module in model.named_modules():
        if type(module) is Attention or type(module) is CoreAttention:
            heads = module.num_heads
            found.append(AttentionGeometry(name, heads, heads, module.head_dim))
        elif "Attention" in type(module).__name__ and hasattr(module, "num_heads"):
            raise HadError(
                f"layer {name!r} ({type(module).__name__}) is not timm's plain Attention "
                "and cannot be converted"
            )
    if not found:
        raise HadError(f"{type(model).__name__} has no attention layer that can be converted")
    return found
