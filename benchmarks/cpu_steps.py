"""What the CPU is timed on: shapes of a layer, its tensors, and the NumPy pipeline beside ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from had.attention.backends import AttentionCall, PackedCall
from had.attention.backends.cpu_launch import pack
from had.attention.functional import binarize

DENSE, FLOOR = "SDPA", "dense floor"
Step = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One layer's shape; `baseline` is what the ratio refers to."""

    name: str
    heads: int
    groups: int
    queries: int
    keys: int
    head_dim: int
    n: int
    baseline: str = DENSE
    causal: bool = False

    @property
    def shape(self) -> str:
        heads = f"{self.heads}" if self.heads == self.groups else f"{self.heads}/{self.groups}"
        return f"{heads} heads, {self.keys} keys, d = {self.head_dim}, N = {self.n}"


CASES = [
    Case("encoder", 12, 12, 128, 128, 64, 16),
    Case("encoder", 12, 12, 512, 512, 64, 32),
    Case("vision encoder", 6, 6, 197, 197, 64, 16),
    Case("prefill", 2, 2, 4096, 4096, 128, 64),
    Case("causal prefill", 2, 2, 4096, 4096, 128, 64, causal=True),
    Case("decode", 16, 16, 1, 32768, 64, 128),
    Case("decode", 16, 16, 1, 32768, 128, 512),
    Case("decode", 32, 8, 1, 131072, 128, 128, baseline=FLOOR),
]


@dataclass
class Layer:
    """The tensors of a case: real queries and keys, their signs, their bits."""

    case: Case
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None

    @classmethod
    def random(cls, case: Case) -> Layer:
        generator = torch.Generator().manual_seed(0)
        shapes = [(case.heads, case.queries), (case.groups, case.keys), (case.groups, case.keys)]
        tensors = [torch.randn(1, *shape, case.head_dim, generator=generator) for shape in shapes]
        full = torch.ones(1, 1, case.queries, case.keys, dtype=torch.bool)
        return cls(case, *tensors, full.tril(case.keys - case.queries) if case.causal else None)

    @property
    def gain(self) -> float:
        return self.case.head_dim**-0.5

    def call(self) -> AttentionCall:
        units = binarize(self.query), binarize(self.key)
        return AttentionCall(*units, self.value, self.case.n, self.gain, self.mask, signs=True)

    def packed(self) -> PackedCall:
        words = pack(self.query), pack(self.key)
        rest = (self.value, self.case.head_dim, self.case.n, self.gain, self.mask)
        return PackedCall(*words, *rest)

    def dense(self) -> Tensor:
        return F.scaled_dot_product_attention(
            self.query, self.key, self.value, is_causal=self.case.causal
        )


def numpy_attention(layer: Layer, packed: PackedCall, rows: int = 256) -> Step:
    """The obvious pipeline: bitwise_count, argpartition, gather. Ties fall as they may."""
    case, share = layer.case, layer.case.heads // layer.case.groups
    words = case.head_dim // 64
    query = packed.query[0].numpy().view(np.uint64)
    key = np.ascontiguousarray(packed.key[0].numpy().view(np.uint64).transpose(0, 2, 1))
    value = layer.value[0].numpy()
    output = np.empty((case.heads, case.queries, case.head_dim), np.float32)

    def attend() -> np.ndarray:
        for head in range(case.heads):
            k, v = key[head // share], value[head // share]
            for first in range(0, case.queries, rows):
                q = query[head, first : first + rows]
                differ = np.zeros((len(q), case.keys), np.uint8)
                for word in range(words):
                    differ += np.bitwise_count(q[:, word, None] ^ k[word])
                kept = np.argpartition(differ, case.n - 1, axis=1)[:, : case.n]
                least = np.take_along_axis(differ, kept, 1).astype(np.float32)
                weights = np.exp(-2 * layer.gain * (least - least.min(1, keepdims=True)))
                weights /= weights.sum(1, keepdims=True)
                output[head, first : first + rows] = np.einsum("rn,rnd->rd", weights, v[kept])
        return output

    return attend
