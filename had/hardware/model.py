"""Workloads of transformers: from the few numbers of a model to attention, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from had.errors import HadError
from had.hardware.workload import AttentionWorkload, LayerWorkload

Layers = tuple[LayerWorkload, ...]
Layer = Callable[[float, float], LayerWorkload]
"""From keys and rows to a layer."""


@dataclass(frozen=True)
class ModelGeometry:
    """The few numbers of a transformer that its attention cost depends on.

    Attributes:
        layers: Attention layers; of a model with a decoder beside its encoder, the encoder's.
        heads: Query heads of a layer.
        head_dim: Width of a head.
        kv_heads: Key/value heads, None for as many as `heads`.
        value_dim: Width of a value, None for `head_dim`.
        tokens: Tokens of every input where the model fixes them, as for images; None elsewhere.
        local_layers: Layers whose queries see a window of their neighbours only.
        window: Keys of that window, the query's own in its middle; None without local layers.
        decoder_layers: Layers of a decoder beside the encoder, each with attention to its own
            tokens and to those of the encoder; None without one.
        name: Shown in reports.
    """

    layers: int
    heads: int
    head_dim: int
    kv_heads: int | None = None
    value_dim: int | None = None
    tokens: int | None = None
    local_layers: int | None = None
    window: int | None = None
    decoder_layers: int | None = None
    name: str = ""

    def workload(
        self,
        context: float,
        n: int | float,
        *,
        minimum: int = 1,
        query_length: float | None = None,
        target: float | None = None,
        bits: tuple[int, int, int] = (1, 1, 16),
        exact: int = 0,
    ) -> AttentionWorkload:
        """Return the workload of this model on `context` keys.

        A decoder beside an encoder writes `target` tokens, each seeing those before it. A step of
        its decoding leaves the encoder alone.

        Args:
            context: Keys each query sees.
            n: Keys kept: a count, or a fraction in (0, 1] as a float.
            minimum: Keys kept at least where `n` is a fraction.
            query_length: Query rows, None for as many as keys; 1 for a decoding step.
            target: Tokens that the decoder writes, None for as many as `context`.
            bits: Bits of queries, keys and values.
            exact: Keys of a query that are scored in full precision.

        Raises:
            HadError: A number is not positive.
        """
        if self.layers < 1:
            raise HadError(f"layers must be positive, found {self.layers}")

        def layer(keys: float, rows: float) -> LayerWorkload:
            return self._layer(keys, rows, keep_count(n, keys, minimum), bits, exact)

        if not self.decoder_layers:
            return AttentionWorkload(self._stack(layer, context, query_length), self.name)
        written = context if target is None else target
        decoder = self.decoder_layers * self._decoder_layer(layer, context, written, query_length)
        encoder = self._stack(layer, context, None) if query_length is None else ()
        return AttentionWorkload(encoder + decoder, self.name)

    def _stack(self, layer: Layer, context: float, query_length: float | None) -> Layers:
        """The layers of an encoder, or of a decoder alone."""
        rows = context if query_length is None else query_length
        everywhere = layer(context, rows)
        if not self.local_layers or not self.window:
            return (everywhere,) * self.layers
        # A whole sequence has edges where windows are cut off; a decoding step is taken inside.
        within = keys_in_window if query_length is None else min
        nearby = layer(within(context, self.window), rows)
        return (everywhere,) * (self.layers - self.local_layers) + (nearby,) * self.local_layers

    def _decoder_layer(
        self, layer: Layer, context: float, written: float, query_length: float | None
    ) -> Layers:
        """Attention of one decoder layer to its own tokens, and to the encoder's."""
        if query_length is not None:
            return layer(written, query_length), layer(context, query_length)
        return layer((written + 1) / 2, written), layer(context, written)

    def _layer(
        self, keys: float, rows: float, kept: float, bits: tuple[int, int, int], exact: int
    ) -> LayerWorkload:
        return LayerWorkload(
            heads=self.heads,
            kv_heads=self.kv_heads or self.heads,
            head_dim=self.head_dim,
            value_dim=self.value_dim or self.head_dim,
            query_length=rows,
            key_length=keys,
            n=kept,
            bits_query=bits[0],
            bits_key=bits[1],
            bits_value=bits[2],
            exact=min(exact, keys),
        )


def keep_count(n: int | float, key_length: float, minimum: int = 1) -> float:
    """Return how many keys `n` keeps: a number of keys, or a fraction of them.

    Args:
        n: An integer count, or a float in (0, 1]: that fraction, rounded up.
        key_length: Keys each query sees.
        minimum: What a fraction keeps at least.

    Raises:
        HadError: `n` is not positive.
    """
    if n <= 0:
        raise HadError(f"n must be positive, found {n!r}")
    fraction = isinstance(n, float) and n <= 1
    return float(max(minimum, math.ceil(n * key_length)) if fraction else n)


def keys_in_window(length: float, window: float) -> float:
    """Return the mean keys that the queries of a sequence see in a window centred on each.

    Args:
        length: Keys of the sequence, as many as queries.
        window: Keys of a window that is not cut off, an odd number.
    """
    side = min((window - 1) / 2, length - 1)
    # Query i has min(i, side) keys on its left; on its right it is the same in reverse.
    left = side * (side + 1) / 2 + side * (length - 1 - side)
    return 1 + 2 * left / length
