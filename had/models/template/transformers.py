"""Hamming attention in a model of the transformers library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from had.models.template.attention import HammingCore

IMPLEMENTATION = "hamming_exported"


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention signature: (B, heads, T, D) in, (B, T, heads, D) out, no weights."""
    output = module.core(query, key, value, attention_mask, position_bias, scaling)
    return output.transpose(1, 2).contiguous(), None


def boolean_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """The boolean mask, True = allowed, with padding and causality in it."""
    skips = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return sdpa_mask(*args, **{**kwargs, **skips})


@contextmanager
def as_base_class(config: Any) -> Iterator[None]:
    """Let a configuration pass as the one it extends.

    Some heads build their body by AutoModel, which would find this file's class again.
    """
    kind, auto_map = type(config), config.__dict__.pop("auto_map", None)
    config.__class__ = kind.__base__
    try:
        yield
    finally:
        config.__class__ = kind
        if auto_map is not None:
            config.auto_map = auto_map


class HammingModel:
    """Puts Hamming attention in charge of every attention layer while a model is built."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        with as_base_class(config):
            super().__init__(config, *args, **kwargs)
        AttentionInterface.register(IMPLEMENTATION, attend)
        AttentionMaskInterface.register(IMPLEMENTATION, boolean_mask)
        for layer in config.had["layers"]:
            core = HammingCore(config.had, layer["heads"], layer["kv_heads"])
            self.get_submodule(layer["name"]).core = core
        for part in self.modules():
            if isinstance(part, PreTrainedModel):
                part.config._attn_implementation = IMPLEMENTATION

    def set_attn_implementation(self, *args: Any, **kwargs: Any) -> None:
        """Refused: the weights were trained for Hamming attention and make no sense without."""
        raise ValueError(f"{type(self).__name__} has Hamming attention and no other")
