"""Every evaluation says what the student's attention would cost in silicon."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from had.attention.module import HammingAttention, hamming_layers, real_tokens
from had.attention.topn import keys_to_keep
from had.hardware import AttentionWorkload, LayerWorkload, compare, evaluate, load_accelerator

log = logging.getLogger(__name__)


class HardwareCost(pl.Callback):
    """Builds the workload of the live model while it is evaluated, and prices it.

    Lengths are those of real tokens, N is what rows really kept. Nothing is synchronised with the
    device before the end of the evaluation, and nothing random is drawn.

    Args:
        accelerators: names or files of accelerators; an empty list turns the callback off.
        baseline: the accelerator that ratios are taken to.

    Attributes:
        metrics: `hw/<accelerator>/<quantity>` of the last evaluation.
    """

    def __init__(self, accelerators: Sequence[str], baseline: str = "standard") -> None:
        self.accelerators = [load_accelerator(name) for name in accelerators]
        self.baseline = load_accelerator(baseline)
        self.metrics: dict[str, float] = {}
        self._handles: list[RemovableHandle] = []
        self._seen: dict[nn.Module, LayerTally] = {}
        self._counted: tuple[Tensor | None, Counts] | None = None

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._watch(trainer, pl_module)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._watch(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._report(trainer)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._report(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._rest()

    def _watch(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero or not self.accelerators:
            return
        layers = hamming_layers(pl_module)
        self._seen = {layer: LayerTally(layer) for layer in layers}
        self._handles = [
            layer.register_forward_pre_hook(self._count, with_kwargs=True) for layer in layers
        ]

    def _count(
        self, layer: HammingAttention, args: tuple[Tensor, ...], kwargs: dict[str, Any]
    ) -> None:
        query, key, _ = args
        mask = kwargs.get("mask")
        # Layers of one forward pass usually share their mask: what it allows is counted once.
        if mask is None or self._counted is None or self._counted[0] is not mask:
            self._counted = mask, count_keys(query, key, mask, layer)
        self._seen[layer].add(self._counted[1])

    def _report(self, trainer: pl.Trainer) -> None:
        self._rest()
        workload = self.workload()
        if workload is None:
            return
        base = evaluate(workload, self.baseline)
        self.metrics = {}
        for report in compare(workload, self.accelerators):
            self.metrics |= report.flat(base)
            if trainer.testing:
                for note in report.notes:
                    log.info("%s: %s", report.accelerator, note)
        # Straight to the loggers: self.log would take longer than counting and pricing together.
        for logger in trainer.loggers:
            logger.log_metrics(self.metrics, step=trainer.global_step)

    def _rest(self) -> None:
        """Stop watching the layers."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._counted = [], None

    def workload(self) -> AttentionWorkload | None:
        """The mean sample of the last evaluation; None if there was none."""
        if not any(tally.counts for tally in self._seen.values()):
            return None
        return AttentionWorkload(tuple(tally.layer_workload() for tally in self._seen.values()))


@dataclass(frozen=True)
class Counts:
    """What one attention call had to do, summed over its batch.

    Attributes:
        samples: sequences.
        rows: real query rows.
        keys: keys that these rows may see, summed over rows.
        kept: keys that they keep, summed over rows.
        exact: keys of these that they score in full precision.
    """

    samples: int
    rows: Tensor
    keys: Tensor
    kept: Tensor
    exact: Tensor


class LayerTally:
    """Collects the counts of one layer."""

    def __init__(self, layer: HammingAttention) -> None:
        self.geometry = layer.geometry
        self.counts: list[Counts] = []

    def add(self, counts: Counts) -> None:
        self.counts.append(counts)

    def layer_workload(self) -> LayerWorkload:
        """The layer's mean sample: one-bit queries and keys, 16-bit values."""
        samples = sum(each.samples for each in self.counts)
        rows, keys, kept, exact = (
            float(torch.stack([getattr(each, name) for each in self.counts]).sum())
            for name in ("rows", "keys", "kept", "exact")
        )
        return LayerWorkload(
            heads=self.geometry.heads,
            kv_heads=self.geometry.kv_heads,
            head_dim=self.geometry.head_dim,
            value_dim=self.geometry.head_dim,
            query_length=rows / samples,
            key_length=keys / rows,
            n=kept / rows,
            exact=exact / rows,
        )


@torch.no_grad()
def count_keys(query: Tensor, key: Tensor, mask: Tensor | None, layer: HammingAttention) -> Counts:
    """Rows, allowed keys and kept keys of one call; padding counts for nothing.

    Args:
        query: (B, H, T, D).
        key: (B, G, S, D).
        mask: bool broadcastable to (B, H, T, S), True = allowed; taken as equal for all heads.
        layer: knows how many of them a row keeps, and in which precision.
    """
    batch, length, keys = query.shape[0], query.shape[2], key.shape[2]
    allowed = torch.full((batch, length), keys, device=query.device)
    real = torch.ones_like(allowed, dtype=torch.bool)
    if mask is not None:
        allowed = mask[:, 0].expand(batch, length, keys).sum(dim=-1)
        if length == keys and not layer.geometry.is_cross:
            real = real_tokens(mask).reshape(-1, length).expand(batch, length)
    allowed = allowed * real
    kept = keys_to_keep(layer.options.topn, allowed)
    exact = allowed.clamp_max(layer.recent)
    return Counts(batch, real.sum(), allowed.sum(), kept.sum(), exact.sum())
