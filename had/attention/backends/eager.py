"""Backends in plain PyTorch: the oracle itself, and the same with selection by threshold."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from had.attention import functional, select
from had.attention.backends.base import AttentionCall, Backend, PackedCall
from had.attention.divergence import AttentionTarget, mean_over_real_rows, row_divergence
from had.attention.functional import Selection
from had.attention.weighting import WEIGHTINGS


class ReferenceBackend(Backend):
    """The oracle, for any call on any device."""

    name: ClassVar[str] = "reference"
    selection: Selection = staticmethod(functional.topn_mask)

    def supports(self, call: AttentionCall) -> bool:
        return True

    def attend(self, call: AttentionCall) -> Tensor:
        return self._attend(call, _scores(call))

    def supports_packed(self, call: PackedCall) -> bool:
        return True

    def attend_packed(self, call: PackedCall) -> Tensor:
        return self.attend(call.unpacked())

    def distil(
        self, call: AttentionCall, target: AttentionTarget, real: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if call.key.shape[2] <= 2 * call.query.shape[3]:
            # Rows no longer than a query and a key: recomputing them would save nothing.
            return self._distil(call, target, real)
        # Recomputing in backward keeps O(T D) of a layer instead of its O(T S) maps.
        return checkpoint(self._distil, call, target, real, use_reentrant=False)

    def _distil(
        self, call: AttentionCall, target: AttentionTarget, real: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        scores = _scores(call)
        rows = row_divergence(scores, target.scores(), call.mask)
        return self._attend(call, scores), mean_over_real_rows(rows, real)

    def _attend(self, call: AttentionCall, scores: Tensor) -> Tensor:
        weighting = WEIGHTINGS[call.weights]
        return functional.attend_to_scores(
            scores, call.value, call.n, call.mask, self.selection, weighting
        )


class EagerBackend(ReferenceBackend):
    """The oracle with the threshold selection: the same keys without sorting every row."""

    name: ClassVar[str] = "eager"
    selection: Selection = staticmethod(select.topn_mask)


def _scores(call: AttentionCall) -> Tensor:
    return functional.attention_scores(call.query, call.key, gain=call.gain, bias=call.bias)
