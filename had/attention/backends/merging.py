"""Decoding with exact recent keys: the many keys far back by a backend that reads bits alone.

A row's softmax over all of its kept keys is that over the exact ones and over one key more, which
stands for the far ones: its score is the log of the sum of their exponentials, and its value their
average. So no backend needs to know of exact keys, only how many a row keeps without its help.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from had.attention.backends.base import Apart, Backend, ExactKeys, PackedBackend, PackedCall


class MergingBackend(PackedBackend):
    """Takes calls of one query token a sequence whose last keys are exact.

    Args:
        far: computes attention to all other keys (`Backend.attend_part`); its name is ours.
    """

    takes_exact_keys = True

    def __init__(self, far: Backend) -> None:
        self.far = far
        self.name = far.name  # type: ignore[misc]

    def supports_packed(self, call: PackedCall) -> bool:
        return (
            call.exact is not None
            and call.query.shape[2] == 1
            and call.bias is None
            and (call.exact.apart is not None or _can_be_cut(call, call.exact))
            and self.far.supports_part(call)
        )

    def attend_packed(self, call: PackedCall) -> Tensor:
        assert call.exact is not None
        far, exact = _parted(call, call.exact)
        allowed = exact.beside.allowed
        kept = exact.key.shape[2] if allowed is None else allowed.sum(-1)
        output, log_sums = self.far.attend_part(far, kept)
        return self.far.merge(exact, output, log_sums)


def _parted(call: PackedCall, exact: ExactKeys) -> tuple[PackedCall, ExactKeys]:
    """The call for all keys but the exact ones, and these apart; views, no copies."""
    if exact.apart is not None:
        return replace(call, exact=None), exact
    near = _near(call, exact)
    far = call.key.shape[2] - near
    allowed = mask = None
    if call.mask is not None:
        allowed, mask = call.mask[..., -near:], call.mask[..., :far]
    apart = Apart(call.value[:, :, -near:], allowed)
    key, value = call.key.narrow(2, 0, far), call.value.narrow(2, 0, far)
    return (
        replace(call, key=key, value=value, mask=mask, exact=None),
        replace(exact, key=exact.key[:, :, -near:], apart=apart),
    )


def _near(call: PackedCall, exact: ExactKeys) -> int:
    """How many last keys are exact to every row, as far as it may see them."""
    return min(exact.recent, exact.key.shape[2], call.key.shape[2])


def _can_be_cut(call: PackedCall, exact: ExactKeys) -> bool:
    """Whether there are keys in front of the exact ones, and all heads agree on which these are."""
    return 0 < _near(call, exact) < call.key.shape[2] and (
        call.mask is None or _ends_with_exact_keys(call, exact, call.mask)
    )


def _ends_with_exact_keys(call: PackedCall, exact: ExactKeys, mask: Tensor) -> bool:
    """Whether all heads share a row of the mask, in which the exact keys are the last ones.

    If more keys than these are given in full precision, then a row whose last keys are forbidden
    scores earlier ones exactly; which, nobody knows without reading the mask.
    """
    no_more = exact.key.shape[2] <= exact.recent
    return no_more and mask.dim() == 4 and mask.shape[1:] == (1, 1, call.key.shape[2])
