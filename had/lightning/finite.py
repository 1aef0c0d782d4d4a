"""A loss that is no number: training went wrong, and every further step is in vain."""

from __future__ import annotations

import math

from had.errors import HadError

_RATES = {
    "teacher": "task.learning_rate or finetune.learning_rate_factor",
    "student": "schedule.learning_rate_factor or schedule.query_key_learning_rate",
}


def finite(loss: float, step: int, role: str) -> float:
    """The loss itself.

    Args:
        loss: of a step.
        step: its number.
        role: "teacher" or "student", of which of them it is.

    Raises:
        HadError: it is infinite or no number.
    """
    if math.isfinite(loss):
        return loss
    raise HadError(
        f"step {step}: the {role}'s loss is {loss}, its weights are lost. Train with smaller steps "
        f"({_RATES[role]}), or in trainer.precision=32-true"
    )
