"""Attention maps to look at: who attends to whom, in a teacher and in a student.

They are computed by the oracle's functions from queries and keys recorded in one forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from had.attention.functional import attention_scores, per_query_head, with_exact_scores
from had.attention.module import HammingAttention, hamming_layers
from had.attention.recorded import recorded_layers
from had.attention.topn import kept_keys
from had.attention.weighting import WEIGHTINGS

_USED = ("mask", "bias", "scale")  # of the arguments of an attention layer


@dataclass(frozen=True)
class AttentionMap:
    """One layer's attention on one batch.

    Attributes:
        weights: float32 (B, H, T, S), rows sum to 1 where a key is allowed.
        kept: bool (B, H, T, S), the keys that a row attends to.
    """

    weights: Tensor
    kept: Tensor


def recorded_maps(teacher: nn.Module) -> list[AttentionMap]:
    """The maps of every layer in the last forward pass of a model that records its attention."""
    maps = []
    for layer in recorded_layers(teacher):
        assert layer.record is not None, "no forward pass since the record was taken"
        weights = layer.record.scores().softmax(dim=-1)
        maps.append(AttentionMap(weights, torch.ones_like(weights, dtype=torch.bool)))
    return maps


@contextmanager
def watched_maps(student: nn.Module) -> Iterator[list[AttentionMap]]:
    """A list that forward passes of a student within the context fill, layer by layer."""
    maps: list[AttentionMap] = []

    def watch(layer: HammingAttention, args: tuple[Tensor, ...], given: dict[str, Any]) -> None:
        maps.append(
            student_map(layer, args[0], args[1], **{name: given.get(name) for name in _USED})
        )

    handles = [
        layer.register_forward_pre_hook(watch, with_kwargs=True)
        for layer in hamming_layers(student)
    ]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def student_map(
    layer: HammingAttention,
    query: Tensor,
    key: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> AttentionMap:
    """The map of one layer; arguments as those of its forward pass, without padding."""
    scale = layer.geometry.head_dim**-0.5 if scale is None else scale
    sigma_query, sigma_key = layer.query(query, None), layer.key(key, None)
    scores = attention_scores(
        layer.final_relaxation(query.float(), sigma_query),
        layer.final_relaxation(key.float(), sigma_key),
        gain=scale * sigma_query * per_query_head(sigma_key, layer.geometry.heads),
        bias=bias,
    )
    always = None
    if layer.recent:
        scores, always = with_exact_scores(
            scores, query, key, layer.recent, gain=scale, mask=mask, bias=bias
        )
    kept = kept_keys(scores, layer.options.topn, mask, always=always)
    return AttentionMap(WEIGHTINGS[layer.options.weights](scores, kept), kept)


def rollout(maps: Sequence[Tensor]) -> Tensor:
    """Attention rollout (arXiv 2005.00928): the maps of all layers, one after the other.

    The residual connection is an identity with the same weight as the mean of the heads.

    Args:
        maps: the weights of each layer, first to last, (B, H, T, T).

    Returns:
        (B, T, T), rows sum to 1: how much of each input token reaches each output token.
    """
    total = torch.eye(maps[0].shape[-1], device=maps[0].device).expand(len(maps[0]), -1, -1)
    for weights in maps:
        through = weights.mean(1)
        total = 0.5 * (through + torch.eye(through.shape[-1], device=through.device)) @ total
    return total
