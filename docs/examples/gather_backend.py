"""A backend of one's own: it reads the values of the kept keys and of no others."""

from typing import ClassVar

import torch
from torch import Tensor

from had.attention.backends import BACKENDS, AttentionCall
from had.attention.backends.eager import EagerBackend
from had.attention.functional import attention_scores, expand_groups
from had.attention.topn import allowed_keys


class GatherBackend(EagerBackend):
    """Sorts every row once and gathers N values; distillation is the eager backend's."""

    name: ClassVar[str] = "gather"

    def supports(self, call: AttentionCall) -> bool:
        return isinstance(call.n, int) and call.weights == "softmax"

    def attend(self, call: AttentionCall) -> Tensor:
        scores = attention_scores(call.query, call.key, gain=call.gain, bias=call.bias)
        scores = scores.masked_fill(~allowed_keys(scores, call.mask), -torch.inf)
        # Stable: of equal scores the lowest index comes first, as the specification wants it.
        ranked = scores.sort(dim=-1, descending=True, stable=True)
        best, kept = ranked.values[..., : call.n], ranked.indices[..., : call.n]
        weights = best.softmax(-1).nan_to_num(0.0)  # rows that may see no key at all
        value = expand_groups(call.value, call.query.shape[1])
        rows = value.unsqueeze(2).expand(*scores.shape, value.shape[-1])
        picked = rows.gather(3, kept.unsqueeze(-1).expand(*kept.shape, value.shape[-1]))
        return (weights.unsqueeze(-1) * picked).sum(3).to(call.value.dtype)


BACKENDS[GatherBackend.name] = GatherBackend()  # last: `auto` prefers those before it
