"""One batch on several processes: the means over its parts become the mean over the whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def of_whole_batch(
    parts: Mapping[str, Tensor], counts: Mapping[str, Tensor | int]
) -> dict[str, Tensor]:
    """Losses whose average over the processes is the loss of the whole batch.

    Strategies average gradients over processes as if all had the same to say. A process whose
    examples are shorter, or fewer, has less of it, so its means are weighted by what they are over.

    Args:
        parts: losses of this process's share of the batch, scalars on one device.
        counts: over how many equal things each of them is the mean: examples, or tokens.

    Returns:
        Each part times world_size * count / (sum of the counts of all processes).
    """
    device = next(iter(parts.values())).device
    own = torch.tensor([float(counts[name]) for name in parts], device=device)
    total = own.clone()
    dist.all_reduce(total)
    factors = own * dist.get_world_size() / total.clamp_min(1)
    return {
        name: part * factor.to(part.dtype)
        for (name, part), factor in zip(parts.items(), factors, strict=True)
    }


def largest(number: int, device: torch.device) -> int:
    """The largest of the numbers that the processes bring, known to all of them."""
    shared = torch.tensor(number, device=device)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return int(shared)


def gathered(value: Any) -> list[Any]:
    """What every process brings, in the order of their ranks; alone, a list of one."""
    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
