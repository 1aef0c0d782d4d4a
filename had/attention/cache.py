"""A key/value cache for `generate()` that keeps keys as bits: D / 8 bytes a key and head.

It takes the place of transformers' dynamic cache. A layer gives it float keys and values, and gets
back the signs of all keys so far as int32 words (`had.attention.bits`) with all values; the
layer's core recognises the words and attends from bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from transformers import Cache, DynamicCache, EncoderDecoderCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from had.attention.cache_layers import BinaryKeyLayer, SlidingBinaryKeyLayer
from had.errors import HadError


@dataclass(frozen=True)
class CacheMemory:
    """What a number of tokens takes.

    Attributes:
        tokens: of every sequence.
        binary: bytes of the binary key cache, all layers and sequences.
        dense: bytes of a bfloat16 cache of the same layers.
    """

    tokens: int
    binary: int
    dense: int

    @property
    def ratio(self) -> float:
        """Binary to dense."""
        return self.binary / self.dense

    def __str__(self) -> str:
        binary, dense = _readable(self.binary), _readable(self.dense)
        return f"{self.tokens} tokens: {binary}, dense bfloat16 {dense} (ratio {self.ratio:.2f})"


class BinaryKeyCache(Cache):
    """Keys as bits, values as they come: for `generate(past_key_values=...)` of a student.

    Students use one by default; giving one is for other values' types, and for keeping it.

    Args:
        config: the model's, which says what layers see a window only; None: none of them does.
        value_dtype: what values are stored as, e.g. torch.bfloat16 or torch.float8_e4m3fn (no
            scale: beyond 448 they are cut off, below 2**-10 they vanish); None for the model's.
        recent: keys that the student scores in full precision (`binarization.recent`), kept beside.

    Raises:
        HadError: a layer of the model remembers other things than keys and values.
    """

    def __init__(
        self,
        config: PretrainedConfig | None = None,
        *,
        value_dtype: torch.dtype | None = None,
        recent: int = 0,
    ) -> None:
        if config is None:
            make: Any = partial(BinaryKeyLayer, value_dtype, recent)
            super().__init__(layer_class_to_replicate=make)
        else:
            layers = DynamicCache(config=config.get_text_config(decoder=True)).layers
            super().__init__(layers=[_binary(layer, value_dtype, recent) for layer in layers])

    @property
    def _binary_layers(self) -> list[BinaryKeyLayer]:
        return cast(list[BinaryKeyLayer], self.layers)

    def memory(self, tokens: int | None = None) -> CacheMemory:
        """What `tokens` tokens of every sequence take; None for those stored now.

        Raises:
            HadError: the cache is empty.
        """
        tokens = self.get_seq_length() if tokens is None else tokens
        if not self.layers:
            raise HadError("the cache is empty: its sizes are known after the first token")
        binary, dense = zip(*(layer.memory(tokens) for layer in self._binary_layers), strict=True)
        return CacheMemory(tokens, sum(binary), sum(dense))

    def allocated(self) -> int:
        """Bytes of all buffers, room for further tokens included."""
        return sum(layer.allocated() for layer in self._binary_layers)


def binary_version(cache: Any, config: PretrainedConfig, recent: int = 0) -> Any:
    """A binary key cache in place of an empty dynamic one; any other cache as it is.

    Args:
        cache: what transformers made for `generate`.
        config: the model's.
        recent: as of `BinaryKeyCache`; among the keys of an encoder none are exact.

    Raises:
        HadError: a layer of the model remembers other things than keys and values.
    """
    if type(cache) is EncoderDecoderCache:
        own = binary_version(cache.self_attention_cache, config, recent)
        return EncoderDecoderCache(own, binary_version(cache.cross_attention_cache, config))
    if type(cache) is not DynamicCache or cache.offloading:
        return cache
    return BinaryKeyCache(config, recent=recent)


def _binary(layer: Any, value_dtype: torch.dtype | None, recent: int) -> BinaryKeyLayer:
    """The binary layer that takes the place of a dynamic one."""
    if type(layer) is DynamicSlidingWindowLayer:
        return SlidingBinaryKeyLayer(layer.sliding_window, value_dtype, recent)
    if type(layer) is DynamicLayer:
        return BinaryKeyLayer(value_dtype, recent)
    raise HadError(
        f"a layer of this model keeps a {type(layer).__name__}, which has no binary form; "
        "generate with cache_implementation='dynamic'"
    )


def _readable(size: float) -> str:
    """Bytes in the unit that leaves one to four digits before the point."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
