"""From real queries and keys to one bit: relaxations of the sign, and its magnitude.

A relaxation maps z = x / sigma to units u that end up in {-1, +1}; the binarized query or key is
y = sigma * u. Keeping u and sigma apart keeps the dot products of signs exact integers.

    relaxation   u(z)                y = sigma * u
    identity     z                   x, full precision
    soft         c tanh(z / c)       c sigma tanh(x / (c sigma))     c from 5 to 1
    sharp        tanh(z / c)         sigma tanh(x / (c sigma))       c from 1 to 0.05
    sign         b(z)                sigma b(x), straight-through gradient

The stages follow arXiv 2502.01770; the clip of the straight-through gradient is not published, so
it is a setting (in units of sigma) with a default of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from had.attention.functional import binarize, straight_through

_SMALLEST_SIGMA = 1e-6


@dataclass
class Relaxation:
    """Maps z = x / sigma to units; `c` is annealed in place while a stage runs.

    Attributes:
        c: sharpness of the tanh relaxations, in units of sigma, unused by the others; a number, or
            a scalar tensor where a captured graph has to see it change.
        clip: the sign's gradient passes where |z| <= clip; None passes it everywhere.
    """

    c: float | Tensor = 1.0
    clip: float | None = None
    exact_signs: ClassVar[bool] = False

    def __call__(self, z: Tensor) -> Tensor:
        raise NotImplementedError


class Identity(Relaxation):
    """No binarization: full-precision queries and keys."""

    def __call__(self, z: Tensor) -> Tensor:
        return z


class SoftTanh(Relaxation):
    """Scaled tanh: near the identity for large c."""

    def __call__(self, z: Tensor) -> Tensor:
        return self.c * torch.tanh(z / self.c)


class SharpTanh(Relaxation):
    """Sharp tanh: near the sign for small c."""

    def __call__(self, z: Tensor) -> Tensor:
        return torch.tanh(z / self.c)


class Sign(Relaxation):
    """The sign with a straight-through gradient, which is all that hardware ever sees."""

    exact_signs = True

    def __call__(self, z: Tensor) -> Tensor:
        soft = z if self.clip is None else z.clamp(-self.clip, self.clip)
        return straight_through(binarize(z), soft)


RELAXATIONS: dict[str, type[Relaxation]] = {
    "identity": Identity,
    "soft": SoftTanh,
    "sharp": SharpTanh,
    "sign": Sign,
}


class Scale(nn.Module):
    """The magnitude sigma of a binarized query or key; subclasses say how it is found.

    Calibration runs `observe` on every batch and then `settle`; scales that need none ignore it.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, x: Tensor, real: Tensor | None) -> Tensor:
        """sigma broadcastable to (B, heads, 1, 1), float32.

        Args:
            x: (B, heads, L, D), queries or keys.
            real: bool broadcastable to (B, 1, L, 1), False at padding; None means all are real.
        """
        raise NotImplementedError

    def observe(self, x: Tensor, real: Tensor | None) -> None:
        """Take one calibration batch into account."""

    def settle(self) -> None:
        """Turn what was observed into sigma."""


class _Calibrated(Scale):
    """Averages a statistic of the calibration batches."""

    def __init__(self, heads: int) -> None:
        super().__init__(heads)
        self._observed: list[Tensor] = []

    def statistic(self, x: Tensor, real: Tensor | None) -> Tensor:
        raise NotImplementedError

    def assign(self, sigma: Tensor) -> None:
        raise NotImplementedError

    @torch.no_grad()
    def observe(self, x: Tensor, real: Tensor | None) -> None:
        self._observed.append(self.statistic(x.float(), real))

    @torch.no_grad()
    def settle(self) -> None:
        if self._observed:
            self.assign(torch.stack(self._observed).mean(dim=0).clamp_min(_SMALLEST_SIGMA))
        self._observed = []


class FrozenSigma(_Calibrated):
    """One sigma a layer: the mean over calibration batches of std(x), frozen (as in the paper)."""

    sigma: Tensor

    def __init__(self, heads: int) -> None:
        super().__init__(heads)
        self.register_buffer("sigma", torch.ones(()))

    def forward(self, x: Tensor, real: Tensor | None) -> Tensor:
        return self.sigma

    def statistic(self, x: Tensor, real: Tensor | None) -> Tensor:
        return _std(x, real, dims=(0, 1, 2, 3)).reshape(())

    def assign(self, sigma: Tensor) -> None:
        self.sigma.copy_(sigma)


class HeadScale(_Calibrated):
    """One learnable sigma a head, started at the calibrated std(x) of the head.

    A scale a head folds into the softmax table, so it costs no hardware. It is stored as its
    logarithm: sigma stays positive and a step of the optimizer is a relative change.
    """

    def __init__(self, heads: int) -> None:
        super().__init__(heads)
        self.log_sigma = nn.Parameter(torch.zeros(heads, 1, 1))

    def forward(self, x: Tensor, real: Tensor | None) -> Tensor:
        return self.log_sigma.float().exp()

    def statistic(self, x: Tensor, real: Tensor | None) -> Tensor:
        return _std(x, real, dims=(0, 2, 3)).reshape(self.heads, 1, 1)

    def assign(self, sigma: Tensor) -> None:
        self.log_sigma.copy_(sigma.log())


class MeanAbs(Scale):
    """mean |x| of each sample and head over its real tokens (BinaryAttention, arXiv 2603.09582).

    One number a head and sequence, computed at run time; no calibration, no parameters.
    """

    def forward(self, x: Tensor, real: Tensor | None) -> Tensor:
        return _mean(x.float().abs(), real, dims=(2, 3)).clamp_min(_SMALLEST_SIGMA)


SCALES: dict[str, Callable[[int], Scale]] = {
    "frozen_sigma": FrozenSigma,
    "head_scale": HeadScale,
    "mean_abs": MeanAbs,
}


def _mean(x: Tensor, real: Tensor | None, dims: tuple[int, ...]) -> Tensor:
    """Mean over dims of the real tokens, dimensions kept."""
    if real is None:
        return x.mean(dim=dims, keepdim=True)
    weight = real.to(x.dtype).expand_as(x)
    return (x * weight).sum(dim=dims, keepdim=True) / weight.sum(dim=dims, keepdim=True).clamp_min(
        1
    )


def _std(x: Tensor, real: Tensor | None, dims: tuple[int, ...]) -> Tensor:
    """Standard deviation over dims of the real tokens, dimensions kept."""
    return _mean((x - _mean(x, real, dims)).square(), real, dims).sqrt()
