"""Dividing one set of examples into training and evaluation."""

import numpy as np
import torch
from torch import Tensor

from had.errors import HadError


def stratified_split(strata: Tensor, eval_fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Draws the same share of every stratum for evaluation.

    `numpy.random.RandomState` is used because its stream is frozen for good: a split named by its
    seed is the same on every machine and in every later version.

    Args:
        strata: (examples,) group of each example.
        eval_fraction: share for evaluation, strictly between 0 and 1.
        seed: of the split alone, whatever the run's seed is.

    Returns:
        The indices for training and for evaluation, int64, each ascending.

    Raises:
        HadError: one of the two parts would be empty.
    """
    generator = np.random.RandomState(seed)
    chosen = np.zeros(len(strata), dtype=bool)
    for group in strata.unique():
        members = np.flatnonzero((strata == group).numpy())
        count = round(len(members) * eval_fraction)
        chosen[generator.permutation(members)[:count]] = True
    if chosen.all() or not chosen.any():
        raise HadError(f"{len(strata)} rows are too few to hold out {eval_fraction:.0%} of them")
    return torch.from_numpy(np.flatnonzero(~chosen)), torch.from_numpy(np.flatnonzero(chosen))


def fraction_problems(key: str, fraction: object) -> list[str]:
    """What is wrong with a share of the data: nothing, or one sentence naming the key."""
    if isinstance(fraction, float) and 0 < fraction < 1:
        return []
    return [f"task.{key}={fraction!r}: must be a share strictly between 0 and 1"]
