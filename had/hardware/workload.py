"""The neutral description of attention that every accelerator is priced on.

It knows neither models nor frameworks: whoever has a live model, a configuration or a paper's table
builds one of these. Lengths may be fractions, because they are usually means over unpadded lengths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from had.errors import HadError

EXACT_BITS = 16  # of the elements of queries and keys that stay in full precision


@dataclass(frozen=True)
class LayerWorkload:
    """Attention of one layer for one sample.

    Attributes:
        heads: Query heads.
        kv_heads: Key/value heads; `heads` must be a multiple of it.
        head_dim: Width of a query and of a key.
        value_dim: Width of a value.
        query_length: Query rows of each head; 1 for one decoding step.
        key_length: Keys each query sees.
        n: Keys kept for the softmax; `n >= key_length` means dense softmax.
        bits_query: Bits of a query element.
        bits_key: Bits of a key element.
        bits_value: Bits of a value element.
        exact: Keys of a query that are scored at `EXACT_BITS` bits; they are among the n.

    Raises:
        HadError: A number is not positive, or the heads do not divide.
    """

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    query_length: float
    key_length: float
    n: float
    bits_query: int = 1
    bits_key: int = 1
    bits_value: int = 16
    exact: float = 0.0

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            least = value >= 0 if item.name == "exact" else value > 0
            if not (math.isfinite(value) and least):
                raise HadError(f"{item.name} of a layer must be positive, found {value!r}")
        if self.heads % self.kv_heads:
            raise HadError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")

    @property
    def exact_loaded(self) -> float:
        """Keys of one head that some query row needs in full precision.

        The last keys of neighbouring rows are the same but for one.
        """
        return self.exact + self.query_length - 1 if self.exact else 0.0

    @property
    def passes(self) -> float:
        """Head passes of one sample: query rows of all heads."""
        return self.heads * self.query_length

    @property
    def kept(self) -> float:
        """Keys that enter the softmax of one query row."""
        return min(self.n, self.key_length)


@dataclass(frozen=True)
class AttentionWorkload:
    """Attention of a whole model for one sample, layer by layer.

    Attributes:
        layers: One entry a layer, in order; layers run one after the other.
        name: Shown in reports.

    Raises:
        HadError: There is no layer.
    """

    layers: tuple[LayerWorkload, ...]
    name: str = ""

    def __post_init__(self) -> None:
        if not self.layers:
            raise HadError("a workload needs at least one layer")

    @property
    def queries(self) -> float:
        """Query rows of one sample, summed over layers; a row counts once for all its heads."""
        return sum(layer.query_length for layer in self.layers)


@dataclass(frozen=True)
class HeadPass:
    """One query row of one head: the unit of work of every accelerator here.

    Attributes:
        keys: Keys scored.
        dim: Width of query and key.
        value_dim: Width of a value.
        kept: Keys that reach the softmax.
        bits_query: Bits of a query element.
        bits_key: Bits of a key element.
        bits_value: Bits of a value element.
        sharing: Head passes that share one load of their keys and values.
        exact: Keys scored in full precision.
        exact_loaded: Keys that some of the sharing passes score so.
    """

    keys: float
    dim: int
    value_dim: int
    kept: float
    bits_query: int
    bits_key: int
    bits_value: int
    sharing: float = 1.0
    exact: float = 0.0
    exact_loaded: float = 0.0

    @property
    def dense(self) -> bool:
        """Whether every key is kept, so that nothing has to be selected."""
        return self.kept >= self.keys


def head_pass(layer: LayerWorkload) -> HeadPass:
    """Return the work of one query row of one head of a layer."""
    return HeadPass(
        keys=layer.key_length,
        dim=layer.head_dim,
        value_dim=layer.value_dim,
        kept=layer.kept,
        bits_query=layer.bits_query,
        bits_key=layer.bits_key,
        bits_value=layer.bits_value,
        sharing=layer.query_length * (layer.heads // layer.kv_heads),
        exact=layer.exact,
        exact_loaded=layer.exact_loaded,
    )


def largest(passes: tuple[HeadPass, ...]) -> HeadPass:
    """Return the pass that a chip serving all of `passes` must be built for."""
    widest = {
        item.name: max(getattr(work, item.name) for work in passes)
        for item in fields(HeadPass)
        if item.name != "sharing"
    }
    return HeadPass(**widest)
