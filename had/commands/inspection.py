"""Students looked at: their sigmas, and how their bits are spread over real tokens."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from had.attention.binarize import Scale
from had.attention.functional import binarize
from had.attention.module import HammingAttention, hamming_layers, real_tokens
from had.errors import HadError
from had.finished_run import student_and_inputs
from had.models.family import family_of
from had.models.storage import STUDENT, load_student
from had.results.report.heads import Bits, Inspection, LayerHeads

log = logging.getLogger(__name__)


def inspect(directory: Path) -> Inspection:
    """Look at the student of a run: with its evaluation data, or without where they are missing.

    Raises:
        HadError: there is no student.
    """
    try:
        student, batches = student_and_inputs(directory)
    except HadError as error:
        # Without data there still are weights; without these, what follows says what is missing.
        reason = str(error).partition("\n")[0]
        log.warning("%s: no bits are counted: %s", directory, reason)
        layers = hamming_layers(load_student(directory / STUDENT))
        return Inspection([_layer(each, None) for each in layers], problem=reason)
    counters = count_bits(student, batches)
    tokens = int(counters[0].tokens["query"])
    return Inspection([_layer(each.layer, each) for each in counters], tokens)


class BitCounter:
    """Counts the ones of a layer's queries and keys while the model runs.

    Attributes:
        layer: that is watched.
        ones: (heads, head_dim) by role, float64.
        tokens: real ones seen, by role.
    """

    def __init__(self, layer: HammingAttention) -> None:
        self.layer = layer
        self.ones: dict[str, Tensor] = {}
        self.tokens = {"query": 0.0, "key": 0.0}

    def __call__(self, layer: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
        """A forward pre-hook."""
        query, key, _ = args
        real = real_tokens(kwargs.get("mask"))
        self._add("query", query, real if query.shape[2] == key.shape[2] else None)
        self._add("key", key, real)

    def _add(self, role: str, x: Tensor, real: Tensor | None) -> None:
        weight = (
            torch.ones_like(x[:, :1, :, :1]) if real is None else real.expand_as(x[:, :1, :, :1])
        )
        ones = ((binarize(x) > 0) * weight).double().sum(dim=(0, 2)).cpu()
        self.ones[role] = self.ones.get(role, 0.0) + ones
        self.tokens[role] += float(weight.sum())

    def shares(self, role: str) -> list[list[float]]:
        """Share of ones by head and bit."""
        return (self.ones[role] / self.tokens[role]).tolist()


@torch.no_grad()
def count_bits(student: nn.Module, batches: Iterable[dict[str, Tensor]]) -> list[BitCounter]:
    """Run a student and count the ones of every bit, by layer.

    Args:
        student: converted by `had.binarize`.
        batches: inputs on its device; at least one.
    """
    counters = [BitCounter(layer) for layer in hamming_layers(student)]
    handles = [each.layer.register_forward_pre_hook(each, with_kwargs=True) for each in counters]
    try:
        for inputs in batches:
            family_of(student).logits(student, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return counters


def _layer(layer: HammingAttention, counted: BitCounter | None) -> LayerHeads:
    scales = {"query": layer.query, "key": layer.key}
    return LayerHeads(
        layer.geometry.name,
        sigma={role: _sigmas(each) for role, each in scales.items() if not each.per_sample},
        bits={role: Bits(counted.shares(role)) for role in scales} if counted else {},
    )


def _sigmas(scale: Scale) -> list[float]:
    return scale(torch.empty(0), None).detach().flatten().tolist()
