"""From real queries and keys to one bit: relaxations of the sign, and its magnitude.

A relaxation maps x, a query or key of magnitude sigma, to units u that end up in {-1, +1}; the
binarized query or key is y = sigma * u. Keeping u and sigma apart keeps the dot products of signs
exact integers.

    relaxation      u                        y = sigma * u
    identity        x / sigma                x, full precision
    soft            c tanh(x / (c sigma))    c sigma tanh(x / (c sigma))     c from 5 to 1
    sharp           tanh(x / (c sigma))      sigma tanh(x / (c sigma))       c from 1 to 0.05
    sign            b(x)                     sigma b(x), straight-through where |x| <= clip sigma
    sign_absolute   b(x)                     sigma b(x), straight-through where |x| <= clip

The stages follow arXiv 2502.01770; the clip of the straight-through gradient is not published, so
it is a setting (in units of sigma) with a default of ours. `sign_absolute` is the estimator of
BinaryAttention (arXiv 2603.09582), whose clip does not follow sigma.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from had.attention.functional import binarize

_SMALLEST_SIGMA = 1e-6


@dataclass
class Relaxation:
    """Maps x and sigma to units; `c` is annealed in place while a stage runs.

    Attributes:
        c: sharpness of the tanh relaxations, in units of sigma, unused by the others; a number, or
            a scalar tensor where a captured graph has to see it change.
        clip: the sign's gradient passes where |x| <= clip, in units of sigma unless the relaxation
            says otherwise; None passes it everywhere.
    """

    c: float | Tensor = 1.0
    clip: float | None = None
    exact_signs: ClassVar[bool] = False

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Units of x, of its shape and dtype.

        Args:
            x: queries or keys.
            sigma: broadcastable to x. A learnable one learns as the factor that turns units into y;
                where it divides x it counts as a constant, as in the oracle.
        """
        raise NotImplementedError


class Identity(Relaxation):
    """No binarization: full-precision queries and keys."""

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x / sigma.detach()


class SoftTanh(Relaxation):
    """Scaled tanh: near the identity for large c."""

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.c * torch.tanh(x / (self.c * sigma.detach()))


class SharpTanh(Relaxation):
    """Sharp tanh: near the sign for small c."""

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return torch.tanh(x / (self.c * sigma.detach()))


class Sign(Relaxation):
    """The sign with a straight-through gradient, which is all that hardware ever sees."""

    exact_signs = True

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        limit = None if self.clip is None else self.clip * sigma
        return _StraightThroughSign.apply(x, sigma, limit)


class SignAbsolute(Sign):
    """The sign whose gradient is clipped by |x| itself, not in units of sigma."""

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return _StraightThroughSign.apply(x, sigma, self.clip)


class _StraightThroughSign(torch.autograd.Function):
    """b(x) with the gradient of x / sigma where |x| <= limit, in as few kernels as it takes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sigma: Tensor, limit: Tensor | float | None) -> Tensor:
        passes = None if limit is None else x.abs() <= limit
        ctx.save_for_backward(sigma, passes)
        return binarize(x)

    @staticmethod
    def backward(ctx: Any, units_grad: Tensor) -> tuple[Tensor, None, None]:
        sigma, passes = ctx.saved_tensors
        grad = units_grad / sigma
        return grad if passes is None else grad * passes, None, None


RELAXATIONS: dict[str, type[Relaxation]] = {
    "identity": Identity,
    "soft": SoftTanh,
    "sharp": SharpTanh,
    "sign": Sign,
    "sign_absolute": SignAbsolute,
}


class Scale(nn.Module):
    """The magnitude sigma of a binarized query or key; subclasses say how it is found.

    Calibration runs `observe` on every batch and then `settle`; scales that need none ignore it.

    Attributes:
        per_sample: sigma depends on x, so that signs alone do not tell it.
    """

    per_sample: ClassVar[bool] = False

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

    def tensors(self) -> tuple[Tensor, ...]:
        """Parameters and buffers: what sigma is found from, unless it is `per_sample`."""
        held = (*self._parameters.values(), *self._buffers.values())
        return tuple(x for x in held if x is not None)

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
        return self.sigma.float()  # a model converted to bfloat16 has its buffers converted, too

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

    per_sample: ClassVar[bool] = True

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
