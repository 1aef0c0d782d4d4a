"""Random layers for the training backends, and what a backend makes of one.

Without a CUDA device the kernels run in Triton's interpreter: see `kernels_run_here`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from had.attention.backends import AttentionCall, choose_backend
from had.attention.backends.base import ExactKeys
from had.attention.divergence import AttentionTarget
from had.attention.functional import binarize
from had.attention.topn import TopN

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
on_device = pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")


@dataclass
class Case:
    """A random layer: shapes, arithmetic, and what is special about it.

    Units that are no signs are rounded to eighths: their products are exact in any order of sums,
    so that no score is a rounding error away from the threshold.
    """

    rows: int = 33
    keys: int = 65
    batch: int = 1
    heads: int = 2
    groups: int = 2
    width: int = 16
    value_width: int = 16
    n: TopN = 9
    signs: bool = True
    rounded: bool = True
    value_dtype: torch.dtype = torch.float32
    gain_shape: tuple[int, ...] = ()
    mask: Tensor | None = None
    bias: Tensor | None = None
    teacher_width: int = 16
    real: Tensor | None = None
    recent: int = 0
    leaves: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        torch.manual_seed(self.rows * 1000 + self.keys)
        # (B, T, H, D) transposed, as model libraries pass it.
        query = self._normal(self.rows, self.heads, self.width)
        key = self._normal(self.keys, self.groups, self.width)
        if self.signs:
            query, key = binarize(query), binarize(key)
        elif self.rounded:
            query, key = (8 * query).round() / 8, (8 * key).round() / 8
        value = self._normal(self.keys, self.groups, self.value_width).to(self.value_dtype)
        gain = 0.2 + 0.3 * torch.rand(self.gain_shape)
        leaves = {"query": query, "key": key, "value": value, "gain": gain}
        if self.recent:
            leaves["exact_query"] = self._normal(self.rows, self.heads, self.width)
            leaves["exact_key"] = self._normal(self.keys, self.groups, self.width)
        self.leaves = {k: v.to(DEVICE) for k, v in leaves.items()}
        self.target = AttentionTarget(
            self._normal(self.rows, self.heads, self.teacher_width).to(DEVICE, self.value_dtype),
            self._normal(self.keys, self.groups, self.teacher_width).to(DEVICE, self.value_dtype),
            0.4,
            self._on_device(self.bias),
        )
        self.weight = torch.randn(self.batch, self.heads, self.rows, self.value_width).to(DEVICE)

    def _normal(self, length: int, heads: int, width: int) -> Tensor:
        return torch.randn(self.batch, length, heads, width).transpose(1, 2)

    @staticmethod
    def _on_device(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.to(DEVICE)

    def call(self, leaves: dict[str, Tensor]) -> AttentionCall:
        given = {k: v for k, v in leaves.items() if not k.startswith("exact_")}
        exact = None
        if "exact_query" in leaves:
            both = (leaves["exact_query"], leaves["exact_key"])
            exact = ExactKeys(*both, 0.3, self.recent)
        return AttentionCall(
            **given,
            n=self.n,
            mask=self._on_device(self.mask),
            bias=self._on_device(self.bias),
            signs=self.signs,
            exact=exact,
        )


def run(backend_name: str, case: Case, *, distil: bool) -> dict[str, Tensor]:
    """Output, divergence and gradients of one backend."""
    leaves = {k: v.detach().requires_grad_() for k, v in case.leaves.items()}
    call = case.call(leaves)
    backend = choose_backend(backend_name, call)
    if distil:
        output, divergence = backend.distil(call, case.target, Case._on_device(case.real))
    else:
        output, divergence = backend.attend(call), torch.zeros(())
    loss = (output.float() * case.weight).mean() * 20 + 3 * divergence
    loss.backward()
    grads = {f"{k}.grad": v.grad for k, v in leaves.items() if v.grad is not None}
    assert {k: v.dtype for k, v in grads.items()} == {
        f"{k}.grad": v.dtype for k, v in leaves.items()
    }
    return {"output": output.detach(), "divergence": divergence.detach(), **grads}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference over that of the expected values."""
    difference = (actual.double() - expected.double()).square().mean().sqrt()
    return float(difference / expected.double().square().mean().sqrt().clamp_min(1e-12))


def padding(*lengths: int, keys: int) -> Tensor:
    """(B, 1, 1, S) mask of sequences of the given lengths."""
    return (torch.arange(keys) < torch.tensor(lengths)[:, None])[:, None, None, :]
