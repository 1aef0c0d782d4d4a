"""Hamming attention in plain PyTorch, as an exported student computes it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import logging

logger = logging.get_logger(__name__)

MAP_ELEMENTS = 1 << 25  # scores formed at a time, 128 MiB in float32
SMALLEST_SIGMA = 1e-6


def signs(x: Tensor) -> Tensor:
    """+1 where x >= 0, else -1, in x's dtype; zero is positive, be it -0.0."""
    return torch.copysign(x.new_ones(()), x + 0.0)


def keys_to_keep(n: int | float, minimum: int, allowed: Tensor) -> Tensor:
    """N, or max(minimum, ceil(N * allowed)) where N is a fraction; never more than allowed."""
    if isinstance(n, int):
        return allowed.clamp(max=n)
    # 0.07 * 100 is 7.000000000000001 in floating point; its ceiling is meant to be 7.
    share = torch.ceil(n * allowed.double() * (1 - 1e-12)).to(allowed.dtype)
    return share.clamp_min(minimum).minimum(allowed)


def top_keys(scores: Tensor, n: int | float, minimum: int, mask: Tensor | None) -> Tensor:
    """The N best allowed keys of every row as a boolean map; equal scores: lowest index first.

    Args:
        scores: (B, H, T, S).
        n: keys a row keeps, an integer, or a fraction of the allowed keys.
        minimum: of them where n is a fraction.
        mask: bool, broadcastable to scores, True = allowed; None allows all.
    """
    allowed = scores > -math.inf if mask is None else (scores > -math.inf) & mask
    keys = scores.shape[-1]
    if isinstance(n, int) and n >= keys:
        return allowed
    count = keys_to_keep(n, minimum, allowed.sum(-1, keepdim=True))
    masked = scores.masked_fill(~allowed, -math.inf)
    most = int(keys_to_keep(n, minimum, torch.tensor(keys)))
    best = torch.topk(masked, most, dim=-1).values
    threshold = best.gather(-1, (count - 1).clamp_min(0))
    above = masked > threshold
    ties = (masked == threshold) & allowed
    return above | (ties & (ties.cumsum(-1) <= count - above.sum(-1, keepdim=True)))


def softmax_weights(scores: Tensor, kept: Tensor) -> Tensor:
    """Softmax restricted to the kept keys; a row without any is all zeros."""
    scores = scores.masked_fill(~kept, -math.inf)
    peak = scores.amax(dim=-1, keepdim=True).clamp_min(torch.finfo(scores.dtype).min)
    weights = torch.exp(scores - peak)
    return weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)


def binary_weights(scores: Tensor, kept: Tensor) -> Tensor:
    """Equal weights for the kept keys whose softmax weight is at least the row's mean."""
    mean = 1 / kept.sum(dim=-1, keepdim=True).clamp_min(1)
    chosen = ((softmax_weights(scores, kept) >= mean) & kept).to(scores.dtype)
    return chosen / chosen.sum(dim=-1, keepdim=True).clamp_min(1)


class FrozenSigma(nn.Module):
    """One calibrated sigma a layer."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.register_buffer("sigma", torch.ones(()))

    def forward(self, x: Tensor, real: Tensor | None) -> Tensor:
        return self.sigma.float()


class HeadScale(nn.Module):
    """One learned sigma a head, stored as its logarithm."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.log_sigma = nn.Parameter(torch.zeros(heads, 1, 1))

    def forward(self, x: Tensor, real: Tensor | None) -> Tensor:
        return self.log_sigma.float().exp()


class MeanAbs(nn.Module):
    """mean |x| of each sample and head over its real tokens; nothing is stored."""

    def __init__(self, heads: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, real: Tensor | None) -> Tensor:
        x = x.float().abs()
        if real is None:
            return x.mean(dim=(2, 3), keepdim=True).clamp_min(SMALLEST_SIGMA)
        real = real.to(x.dtype).expand_as(x)
        total = (x * real).sum(dim=(2, 3), keepdim=True)
        count = real.sum(dim=(2, 3), keepdim=True).clamp_min(1)
        return (total / count).clamp_min(SMALLEST_SIGMA)


SCALES = {"frozen_sigma": FrozenSigma, "head_scale": HeadScale, "mean_abs": MeanAbs}
WEIGHTS = {"softmax": softmax_weights, "binary": binary_weights}


class HammingCore(nn.Module):
    """One layer's attention: one-bit queries and keys, softmax over the N best keys of a row.

    For inference: signs pass no gradient to queries and keys, and there is no dropout.

    Args:
        settings: of the student: n, minimum, scale, relaxation, weights.
        heads: query heads H.
        kv_heads: key/value heads G; H is a multiple of G.
    """

    def __init__(self, settings: dict[str, Any], heads: int, kv_heads: int) -> None:
        super().__init__()
        self.n, self.minimum = settings["n"], settings["minimum"]
        self.one_bit = settings["relaxation"] == "sign"
        self.weights = WEIGHTS[settings["weights"]]
        self.shared = heads // kv_heads
        self.query = SCALES[settings["scale"]](heads)
        self.key = SCALES[settings["scale"]](kv_heads)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """(B, H, T, D), (B, G, S, D), (B, G, S, V) to (B, H, T, V) in value's dtype.

        Args:
            query: after any rotary embedding and normalisation.
            key: likewise.
            value: unchanged.
            mask: bool, broadcastable to (B, H, T, S), True = allowed; None allows all.
            bias: added to the scores before the selection, broadcastable to (B, H, T, S).
            scale: of the dot product, default D ** -0.5.
        """
        if self.training:
            logger.warning_once("exported Hamming attention is for inference: call model.eval()")
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        real_keys = real_tokens(mask)
        real_queries = real_keys if query.shape[2] == key.shape[2] else None
        with torch.autocast(query.device.type, enabled=False):
            sigma_query, sigma_key = self.query(query, real_queries), self.key(key, real_keys)
            units = self._units(query.float(), sigma_query)
            keys = self._for_query_heads(self._units(key.float(), sigma_key))
            gain = scale * sigma_query * self._for_query_heads(sigma_key)
            values = self._for_query_heads(value).float()
            size = max(1, MAP_ELEMENTS // max(1, units[:, :, 0, 0].numel() * keys.shape[2]))
            parts = [
                self._rows(units, keys, values, gain, mask, bias, slice(start, start + size))
                for start in range(0, max(1, units.shape[2]), size)
            ]
        return torch.cat(parts, dim=2).to(value.dtype)

    def _units(self, x: Tensor, sigma: Tensor) -> Tensor:
        return signs(x) if self.one_bit else x / sigma

    def _for_query_heads(self, x: Tensor) -> Tensor:
        """What belongs to key heads, repeated for the query heads that share them."""
        return x if self.shared == 1 or x.dim() < 3 else x.repeat_interleave(self.shared, dim=-3)

    def _rows(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        gain: Tensor,
        mask: Tensor | None,
        bias: Tensor | None,
        rows: slice,
    ) -> Tensor:
        """The attention of some query rows."""
        scores = gain * (query[:, :, rows] @ key.transpose(-2, -1))
        if bias is not None:
            scores = scores + of_rows(bias, rows)
        allowed = None if mask is None else of_rows(mask, rows)
        kept = top_keys(scores, self.n, self.minimum, allowed)
        return self.weights(scores, kept) @ value


def of_rows(x: Tensor, rows: slice) -> Tensor:
    """Rows of what is broadcastable to (B, H, T, S); what all rows share stays as it is."""
    return x[..., rows, :] if x.dim() > 1 and x.shape[-2] > 1 else x


def real_tokens(mask: Tensor | None) -> Tensor | None:
    """bool (B or 1, 1, S, 1): a key is real if some query may attend to it; None: all are."""
    if mask is None:
        return None
    mask = mask.expand((1,) * (4 - mask.dim()) + mask.shape) if mask.dim() < 4 else mask
    return mask.any(dim=2).any(dim=1, keepdim=True).unsqueeze(-1)
