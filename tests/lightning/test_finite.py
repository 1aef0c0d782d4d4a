"""Steps without a usable gradient are left out; training that went wrong leaves no teacher."""

from __future__ import annotations

import logging
from math import inf, nan
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from had.errors import HadError
from had.lightning.finite import FiniteSteps
from had.lightning.module import DistillationModule
from had.runner import run
from tests.lightning.helpers import tiny

CPU = torch.device("cpu")


def test_losses_are_numbers_or_an_error() -> None:
    assert FiniteSteps("student", CPU).number(torch.tensor(0.5), 7) == 0.5
    for loss in (inf, -inf, nan):
        wanted = rf"step 7: the student's loss is {loss}.*schedule\.learning"
        with pytest.raises(HadError, match=wanted):
            FiniteSteps("student", CPU).number(torch.tensor(loss), 7)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("bad", [nan, inf])
def test_a_step_without_a_usable_gradient_changes_nothing(fused: bool, bad: float) -> None:
    """Neither weights nor the optimizer's means: the next step is as if there had been none."""
    weights = [nn.Parameter(torch.ones(3)) for _ in range(2)]
    gradients = [[0.5, 0.25, 1.0], [1.0, bad, 1.0], [-1.0, 2.0, 1.0]]
    for weight, mine in zip(weights, (gradients, gradients[::2]), strict=True):
        optimizer, steps = torch.optim.AdamW([weight], fused=fused), FiniteSteps("student", CPU)
        for gradient in mine:
            weight.grad = torch.tensor(gradient)
            steps.look(optimizer, torch.linalg.vector_norm(weight.grad))
            optimizer.step()
    torch.testing.assert_close(*weights, rtol=0, atol=0)


def test_ten_in_a_row_are_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """However finite the loss: nothing is learned any more."""
    weight = nn.Parameter(torch.ones(1))
    optimizer, steps = torch.optim.AdamW([weight]), FiniteSteps("teacher", CPU)
    for number in range(12):
        steps.look(optimizer, torch.tensor(1.0 if number == 1 else nan))
        if number == 10:
            assert steps.number(torch.tensor(0.5), number) == 0.5
    assert "step 10: steps left out so far, as their gradient was not finite: 10" in caplog.text
    with pytest.raises(HadError, match=r"step 11.*task\.learning_rate"):
        steps.number(torch.tensor(0.5), 11)


def test_one_bad_batch_does_not_end_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = DistillationModule._step

    def third_is_bad(self: DistillationModule, batch: object) -> dict[str, Tensor]:
        parts = whole(self, batch)
        return {**parts, "loss": parts["loss"] * nan} if self.global_step == 2 else parts

    monkeypatch.setattr(DistillationModule, "_step", third_is_bad)
    with caplog.at_level(logging.WARNING):
        metrics = run(tiny(tmp_path, "trainer.log_every_n_steps=1"))
    assert "as their gradient was not finite: 1" in caplog.text
    assert all(value == value for name, value in metrics.items() if "accuracy" in name)


def test_cudnn_attention_does_not_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its backward gives such gradients on GPUs; who calls it elsewhere is left alone."""
    enabled, whole = set(), DistillationModule._step

    def looking(self: DistillationModule, batch: object) -> dict[str, Tensor]:
        enabled.add(torch.backends.cuda.cudnn_sdp_enabled())
        return whole(self, batch)

    monkeypatch.setattr(DistillationModule, "_step", looking)
    before = torch.backends.cuda.cudnn_sdp_enabled()
    run(tiny(tmp_path))
    assert enabled == {False}
    assert torch.backends.cuda.cudnn_sdp_enabled() == before


@pytest.mark.parametrize("clip", [1.0, "null"])
def test_a_run_ends_there_and_caches_no_teacher(tmp_path: Path, clip: float | str) -> None:
    """Though no step of it is logged: the last one is looked at, too."""
    overrides = ("task.learning_rate=1e30", f"trainer.gradient_clip_val={clip}")
    with pytest.raises(HadError, match=r"the teacher's loss is (nan|inf).*task\.learning_rate"):
        run(tiny(tmp_path, *overrides, "trainer.log_every_n_steps=1000"))
    assert not list((tmp_path / "cache").rglob("model.safetensors"))
    assert not (tmp_path / "run" / "metrics.json").exists()
