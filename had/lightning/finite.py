"""Losses and gradients that are no numbers: a step of that kind is left out, many are an error."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor

from had.errors import HadError

log = logging.getLogger(__name__)

_RATES = {
    "teacher": "task.learning_rate or finetune.learning_rate_factor",
    "student": "schedule.learning_rate_factor or schedule.query_key_learning_rate",
}
_PATIENCE = 10  # steps in a row without a usable gradient: the weights themselves are lost


class FiniteSteps:
    """Leaves out the steps whose gradient is not finite, and ends training that is in vain.

    One batch can give such a gradient, and a single step along it loses all weights.
    Steps are counted on the device, so nothing waits for them.

    Args:
        role: "teacher" or "student", of which of them the steps are.
        device: of the gradients.
    """

    def __init__(self, role: str, device: torch.device) -> None:
        self._role = role
        self._left_out, self._in_a_row = (torch.zeros((), dtype=torch.long, device=device),) * 2
        self._looks, self._told = False, 0

    def look(self, optimizer: torch.optim.Optimizer, norm: Tensor) -> None:
        """Have the optimizer's next step change nothing if the gradients' norm is not finite."""
        self._looks = True
        bad = ~norm.isfinite()
        self._left_out = self._left_out + bad
        self._in_a_row = (self._in_a_row + bad) * bad
        if optimizer.defaults.get("fused"):  # its kernels look for themselves
            optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
        elif bad:
            optimizer.zero_grad(set_to_none=True)

    def number(self, loss: Tensor, step: int) -> float:
        """The loss of a step as a number; says how many steps were left out since the last time.

        Raises:
            HadError: the last steps had no usable gradient, or there is no such loss and nobody
                looks at gradients.
        """
        number, left_out, in_a_row = float(loss.detach()), int(self._left_out), int(self._in_a_row)
        lost = in_a_row >= min(_PATIENCE, step) if self._looks else not math.isfinite(number)
        if lost:
            raise HadError(
                f"step {step}: the {self._role}'s loss is {number}, its weights are lost. Train "
                f"with smaller steps ({_RATES[self._role]}), or in trainer.precision=32-true"
            )
        if left_out > self._told:
            self._told = left_out
            log.warning(
                "step %d: steps left out so far, as their gradient was not finite: %d",
                *(step, left_out),
            )
        return number
