"""Relaxations against their formulas, scales against direct statistics."""

from __future__ import annotations

import pytest
import torch

from had import config
from had.attention.binarize import (
    RELAXATIONS,
    SCALES,
    FrozenSigma,
    HeadScale,
    MeanAbs,
    SharpTanh,
    Sign,
    SignAbsolute,
    SoftTanh,
)
from had.attention.options import FINAL_RELAXATIONS
from had.attention.weighting import WEIGHTINGS

ONE = torch.ones(())


def test_the_configuration_knows_exactly_these_names() -> None:
    assert set(config.RELAXATIONS) == set(RELAXATIONS)
    assert set(config.FINAL_RELAXATIONS) == set(FINAL_RELAXATIONS) <= set(RELAXATIONS)
    assert set(config.WEIGHTINGS) == set(WEIGHTINGS)
    assert set(config.SCALES) == set(SCALES)


def test_soft_tanh_is_the_identity_for_large_c_and_meets_sharp_at_one() -> None:
    x = torch.linspace(-3, 3, 31)
    torch.testing.assert_close(SoftTanh(c=1e3)(x, ONE), x, atol=1e-4, rtol=0)
    torch.testing.assert_close(SoftTanh(c=1.0)(x, ONE), SharpTanh(c=1.0)(x, ONE))


@pytest.mark.parametrize("c", [5.0, 1.0, 0.05])
def test_tanh_relaxations_are_those_of_the_table(c: float) -> None:
    x, sigma = torch.linspace(-3, 3, 31), torch.tensor(0.7)
    torch.testing.assert_close(
        sigma * SoftTanh(c=c)(x, sigma), c * sigma * torch.tanh(x / (c * sigma))
    )
    torch.testing.assert_close(
        sigma * SharpTanh(c=c)(x, sigma), sigma * torch.tanh(x / (c * sigma))
    )


def test_sharp_tanh_approaches_the_sign() -> None:
    x = torch.tensor([-1.0, -0.3, 0.3, 1.0])
    torch.testing.assert_close(SharpTanh(c=0.05)(x, ONE), x.sign(), atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("relaxation", "gradient"),
    [
        (Sign(clip=1.0), [0.0, 2.0, 2.0, 2.0, 0.0]),  # within sigma
        (Sign(clip=5.0), [2.0, 2.0, 2.0, 2.0, 2.0]),
        (Sign(), [2.0, 2.0, 2.0, 2.0, 2.0]),
        (SignAbsolute(clip=1.0), [0.0, 2.0, 2.0, 2.0, 0.0]),
        (SignAbsolute(clip=0.4), [0.0, 0.0, 2.0, 0.0, 0.0]),  # sigma does not count
    ],
)
def test_sign_is_exact_and_passes_gradient_within_the_clip(
    relaxation: Sign, gradient: list[float]
) -> None:
    """sigma = 1/2, so the gradient of x / sigma is 2."""
    x = torch.tensor([-2.0, -0.5, -0.0, 0.5, 2.0], requires_grad=True)
    units = relaxation(x, torch.tensor(0.5))
    units.sum().backward()
    assert units.tolist() == [-1.0, -1.0, 1.0, 1.0, 1.0]
    assert x.grad is not None
    assert x.grad.tolist() == gradient


def padded(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    x = torch.randn(3, 4, 6, 8) * torch.arange(1, 5).reshape(1, 4, 1, 1) + 0.3
    real = torch.arange(6).reshape(1, 1, 6, 1) < torch.tensor([6, 4, 1]).reshape(3, 1, 1, 1)
    return x, real


def test_frozen_sigma_is_the_mean_of_std_over_batches_without_padding() -> None:
    scale = FrozenSigma(heads=4)
    expected = []
    for seed in range(3):
        x, real = padded(seed)
        scale.observe(x, real)
        expected.append(x[real.expand_as(x)].std(correction=0))
    scale.settle()
    torch.testing.assert_close(scale(x, real), torch.stack(expected).mean())
    assert [name for name, _ in scale.named_parameters()] == []
    assert "sigma" in scale.state_dict()


def test_head_scale_starts_at_the_std_of_each_head_and_learns() -> None:
    scale = HeadScale(heads=4)
    x, _ = padded()
    scale.observe(x, None)
    scale.settle()
    expected = x.transpose(0, 1).reshape(4, -1).std(dim=1, correction=0)
    torch.testing.assert_close(scale(x, None).flatten(), expected)
    scale(x, None).sum().backward()
    torch.testing.assert_close(scale.log_sigma.grad.flatten(), expected)


def test_mean_abs_ignores_padding_and_is_one_number_a_sample_and_head() -> None:
    x, real = padded()
    sigma = MeanAbs(heads=4)(x, real)
    assert sigma.shape == (3, 4, 1, 1)
    assert sigma[1, 2].item() == pytest.approx(x[1, 2, :4].abs().mean().item(), rel=1e-6)
    x[1, :, 4:] = 1e6
    assert torch.equal(MeanAbs(heads=4)(x, real), sigma)
