"""A schedule of stages, unrolled over the steps of a run.

Everything is a function of the step, so a resumed run needs nothing but its step count.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate

from had.attention.binarize import RELAXATIONS, Relaxation
from had.config import ScheduleConfig, StageConfig

DECAYS: dict[str, Callable[[float], float]] = {
    "linear": lambda remaining: remaining,
    "cosine": lambda remaining: 0.5 * (1 - math.cos(math.pi * remaining)),
    "constant": lambda remaining: 1.0,
    "late": lambda remaining: min(1.0, 4 * remaining),  # linear in the last quarter
}
"""The learning rate's path after the warm-up, from remaining = 1 to 0."""


class Schedule:
    """Which stage a step belongs to, how sharp its relaxation is, and its learning rate.

    Args:
        config: the stages and the learning-rate curve.
        total_steps: optimizer steps of the whole run.
        ste_clip: clip of the sign's straight-through gradient, in units of sigma; None for none.
        seed: of what is drawn at random in a step.
    """

    def __init__(
        self,
        config: ScheduleConfig,
        total_steps: int,
        ste_clip: float | None = None,
        seed: int = 0,
    ) -> None:
        self.config = config
        self.seed = seed
        self.total_steps = total_steps
        self.ste_clip = ste_clip
        shares = accumulate(stage.share for stage in config.stages)
        self.borders = [round(share * total_steps) for share in shares]
        """The step after the last one of each stage."""

    def stage_index(self, step: int) -> int:
        """The stage that step (0-based) belongs to; the last one for any step beyond the end."""
        return min(bisect_right(self.borders, step), len(self.borders) - 1)

    def stage(self, step: int) -> StageConfig:
        """The stage that step belongs to."""
        return self.config.stages[self.stage_index(step)]

    def relaxation(self, step: int) -> Relaxation:
        """What stands for the sign at a step."""
        stage = self.stage(step)
        return RELAXATIONS[stage.relaxation](c=self.sharpness(step), clip=self.ste_clip)

    def sharpness(self, step: int) -> float:
        """c at a step: geometric from the stage's first value to its last; 1 where it has none."""
        stage = self.stage(step)
        if stage.c is None:
            return 1.0
        first, last = stage.c
        return first * (last / first) ** self._progress(step)

    def learning_rate_factor(self, step: int) -> float:
        """Multiplier of the base learning rate: linear warm-up, decay, times the stage's factor."""
        warmup = max(1, round(self.config.warmup * self.total_steps))
        rising = min(1.0, (step + 1) / warmup)
        remaining = (self.total_steps - step) / max(1, self.total_steps - warmup)
        floor = self.config.final_factor
        falling = floor + (1 - floor) * DECAYS[self.config.decay](max(0.0, min(1.0, remaining)))
        return min(rising, falling) * self.stage(step).learning_rate_factor

    def _progress(self, step: int) -> float:
        """0 at the first step of the step's stage, 1 at its last."""
        index = self.stage_index(step)
        first = self.borders[index - 1] if index else 0
        length = self.borders[index] - first
        return min(1.0, (step - first) / max(1, length - 1))
