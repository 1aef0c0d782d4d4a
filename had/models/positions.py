"""Encoders with learned positions, made to take longer sequences than they were trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from had.errors import HadError
from had.models.transformers import ConvertedSource

_TABLE = "position_embeddings"  # the embedding's name in BERT and its relatives


def interpolated(table: Tensor, length: int) -> Tensor:
    """The table (positions, width) stretched: new positions lie between old ones."""
    stretched = F.interpolate(table.T[None], size=length, mode="linear", align_corners=True)
    return stretched[0].T.contiguous()


def tiled(table: Tensor, length: int) -> Tensor:
    """The table again and again: neighbours stay as they were trained, except at the seams."""
    times = -(-length // len(table))
    return table.repeat(times, 1)[:length].contiguous()


METHODS: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "interpolate": interpolated,
    "tile": tiled,
}


class ExtendedSource(ConvertedSource):
    """A pretrained encoder with more positions; the new ones are learned in fine-tuning.

    Args:
        length: positions it is to have.
        method: where their embeddings start, one of `METHODS`.
        **common: see `ModelSource`.
    """

    def __init__(self, *, length: int, method: str, **common: Any) -> None:
        super().__init__(**common)
        if method not in METHODS:
            raise HadError(f"model.method={method}: one of {', '.join(METHODS)}")
        self.length, self.method = length, method

    def positions(self) -> int:
        return self.length

    def preprocessor(self) -> Any:
        tokenizer = super().preprocessor()
        tokenizer.model_max_length = self.length
        return tokenizer

    def _load(self, auto: Any, config: PretrainedConfig, complete: bool) -> PreTrainedModel:
        model = super()._load(auto, config, complete)
        try:
            extend(model, self.length, METHODS[self.method])
        except HadError as error:
            raise HadError(f"{self}: {error}") from None
        return model


def extend(model: nn.Module, length: int, method: Callable[[Tensor, int], Tensor]) -> None:
    """Give a model's table of learned positions another length, in place.

    Raises:
        HadError: it has no such table, or one whose first rows are not positions.
    """
    owners = [module for module in model.modules() if isinstance(_table(module), nn.Embedding)]
    if len(owners) != 1 or _table(owners[0]).padding_idx is not None:
        raise HadError(
            f"{type(model).__name__} has no plain table of learned positions to lengthen; choose "
            "a BERT, or a model with relative or rotary positions"
        )
    (owner,) = owners
    with torch.no_grad():
        weight = method(_table(owner).weight.detach(), length)
    setattr(owner, _TABLE, nn.Embedding.from_pretrained(weight, freeze=False))
    for name, buffer in list(owner.named_buffers(recurse=False)):
        if name == "position_ids":
            owner.register_buffer(name, torch.arange(length)[None], persistent=False)
        elif name == "token_type_ids":
            owner.register_buffer(name, buffer.new_zeros(1, length), persistent=False)
    model.config.max_position_embeddings = length


def _table(module: nn.Module) -> Any:
    return getattr(module, _TABLE, None)
