"""How closely a finished student attends like its teacher, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from had.config import StageWeights
from had.distill.pair import TeacherStudent

_DIVERGENCES = StageWeights(attention=1.0, output=0.0, hidden=0.0, task=0.0)


@torch.no_grad()
def attention_agreement(
    models: TeacherStudent, batches: Iterable[dict[str, Tensor]]
) -> dict[str, float]:
    """The divergence of the student's attention rows from the teacher's.

    Args:
        models: both on one device, the student with what it computes with once trained.
        batches: inputs of both, on that device.

    Returns:
        `attention/<layer>/kl_nats`, layers counted from 0: KL(teacher row || student row) over all
        allowed keys, the mean over heads, real query rows and batches, in nats. Empty without
        batches.
    """
    seen = [torch.stack(models(inputs, _DIVERGENCES).divergences) for inputs in batches]
    if not seen:
        return {}
    means = torch.stack(seen).mean(dim=0).tolist()
    return {f"attention/{layer}/kl_nats": value for layer, value in enumerate(means)}
