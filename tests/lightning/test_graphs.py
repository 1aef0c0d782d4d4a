"""Captured steps do what uncaptured ones do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from had.lightning.graphs import StepGraphs

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def model_and_step(sharpness: Tensor) -> tuple[nn.Module, StepGraphs]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1)).to(DEVICE)

    def compute(batch: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
        output = model(batch["inputs"]["x"])
        return {"loss": (sharpness * output).square().mean(), "output": output.mean()}

    return model, StepGraphs(compute, model.parameters())


def batch(seed: int, size: int) -> dict[str, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return {"inputs": {"x": torch.randn(size, 8, generator=generator).to(DEVICE)}}


def expected(model: nn.Module, data: dict[str, dict[str, Tensor]], c: float) -> list[Tensor]:
    loss = (c * model(data["inputs"]["x"])).square().mean()
    return list(torch.autograd.grad(loss, list(model.parameters())))


def check(steps: int) -> None:
    """Batches of two sizes in turn, with a number that changes from step to step."""
    sharpness = torch.ones((), device=DEVICE)
    model, graphs = model_and_step(sharpness)
    for step in range(steps):
        data = batch(step, 4 if step % 2 else 6)
        sharpness.fill_(step + 1.0)
        parts = graphs(data, kind="stage")
        assert set(parts) == {"loss", "output"}
        reference = expected(model, data, step + 1.0)
        for parameter, gradient in zip(model.parameters(), reference, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)


def test_uncaptured_steps_leave_the_gradients_of_their_batch() -> None:
    check(steps=2)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")
def test_captured_steps_follow_their_batch_and_their_numbers() -> None:
    check(steps=12)
