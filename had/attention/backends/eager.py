"""Backends in plain PyTorch: the oracle itself, and the same with selection by threshold."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from had.attention import functional, select, topn
from had.attention.backends.base import AttentionCall, Backend, PackedCall
from had.attention.divergence import AttentionTarget, mean_over_real_rows, row_divergence
from had.attention.topn import Selection
from had.attention.weighting import WEIGHTINGS

_MAP_ELEMENTS = 1 << 25  # 128 MiB a float32 map, of which a handful exist at a time


class ReferenceBackend(Backend):
    """The oracle, for any call on any device.

    A call whose maps would be large is worked off some query rows at a time, and what is not kept
    of them is computed again in backward: memory beyond the tensors given is the same for every
    length, up to one row.

    Args:
        map_elements: scores, B * H * rows * S, that are formed at a time.
    """

    name: ClassVar[str] = "reference"
    takes_exact_keys: ClassVar[bool] = True
    selection: Selection = staticmethod(topn.topn_mask)

    def __init__(self, map_elements: int = _MAP_ELEMENTS) -> None:
        self.map_elements = map_elements

    def supports(self, call: AttentionCall) -> bool:
        return True

    def attend(self, call: AttentionCall) -> Tensor:
        chunks = self._chunks(call)
        if len(chunks) == 1:
            return self._attend(call)
        return _joined([_recomputed(self._attend, rows_of(call, rows)) for rows in chunks])

    def supports_packed(self, call: PackedCall) -> bool:
        return True

    def attend_packed(self, call: PackedCall) -> Tensor:
        return self.attend(call.unpacked())

    def distil(
        self, call: AttentionCall, target: AttentionTarget, real: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if target.stride > 1:
            return self.attend(call), self.divergence(call, target, real)
        chunks = self._chunks(call)
        if len(chunks) == 1 and call.key.shape[2] <= 2 * call.query.shape[3]:
            # Rows no longer than a query and a key: recomputing them would save nothing.
            output, divergence = self._distil(call, target)
        else:
            # Recomputing in backward keeps O(T D) of a layer instead of its O(T S) maps.
            parts = [
                _recomputed(self._distil, rows_of(call, rows), target_rows(target, rows))
                for rows in chunks
            ]
            output, divergence = map(_joined, zip(*parts, strict=True))
        return output, mean_over_real_rows(divergence, real)

    def divergence(
        self, call: AttentionCall, target: AttentionTarget, real: Tensor | None
    ) -> Tensor:
        """That of `distil`, of the rows that the target compares, without the output."""
        length = call.query.shape[2]
        compared = slice(min(target.stride, length) - 1, None, target.stride)
        call, target = rows_of(call, compared), target_rows(target, compared)
        parts = [
            _recomputed(_divergence, rows_of(call, rows), target_rows(target, rows))
            for rows in self._chunks(call)
        ]
        return mean_over_real_rows(_joined(parts), _rows(real, compared))

    def _chunks(self, call: AttentionCall) -> list[slice]:
        """The query rows of the call, as many at a time as `map_elements` allows, at least one."""
        batch, heads, length, _ = call.query.shape
        rows = max(1, self.map_elements // max(1, batch * heads * call.key.shape[2]))
        return [slice(start, start + rows) for start in range(0, max(1, length), rows)]

    def _attend(self, call: AttentionCall) -> Tensor:
        return self._weigh(call, *_scores(call))

    def _distil(self, call: AttentionCall, target: AttentionTarget) -> tuple[Tensor, Tensor]:
        """The output (B, H, T, V), and the divergence of every row (B, H, T)."""
        scores, always = _scores(call)
        return self._weigh(call, scores, always), row_divergence(scores, target.scores(), call.mask)

    def _weigh(self, call: AttentionCall, scores: Tensor, always: Tensor | None) -> Tensor:
        weighting = WEIGHTINGS[call.weights]
        return functional.attend_to_scores(
            scores, call.value, call.n, call.mask, self.selection, weighting, always
        )


class EagerBackend(ReferenceBackend):
    """The oracle with the threshold selection: the same keys without sorting every row."""

    name: ClassVar[str] = "eager"
    selection: Selection = staticmethod(select.topn_mask)


def _divergence(call: AttentionCall, target: AttentionTarget) -> Tensor:
    """Of every row (B, H, T)."""
    return row_divergence(_scores(call)[0], target.scores(), call.mask)


def rows_of(call: AttentionCall, rows: slice) -> AttentionCall:
    """The call for some of its query rows; views, no copies."""
    return replace(
        call,
        query=call.query[:, :, rows],
        gain=_rows(call.gain, rows),
        mask=_rows(call.mask, rows),
        bias=_rows(call.bias, rows),
        exact=call.exact and replace(call.exact, query=call.exact.query[:, :, rows]),
    )


def target_rows(target: AttentionTarget, rows: slice) -> AttentionTarget:
    """The teacher's part for the same query rows."""
    return replace(target, query=target.query[:, :, rows], bias=_rows(target.bias, rows))


def _rows(x: Any, rows: slice) -> Any:
    """Rows of what is broadcastable to (B, H, T, S); what all rows share stays as it is."""
    return x[..., rows, :] if isinstance(x, Tensor) and x.dim() > 1 and x.shape[-2] > 1 else x


def _joined(parts: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """Chunks (B, H, rows, ...) one after the other."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _scores(call: AttentionCall) -> tuple[Tensor, Tensor | None]:
    """The scores (B, H, T, S), and which of them are exact; None for none."""
    scores = functional.attention_scores(call.query, call.key, gain=call.gain, bias=call.bias)
    if (exact := call.exact) is None:
        return scores, None
    given = exact.query, exact.key, exact.recent
    return functional.with_exact_scores(
        scores, *given, gain=exact.gain, mask=call.mask, bias=call.bias
    )


# Nothing here draws random numbers, so none need be repeated.
_recomputed = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
