"""Weights of kept keys: one bit by hand, and what both ways share."""

from __future__ import annotations

import pytest
import torch

from had.attention.backends import BACKENDS, AttentionCall
from had.attention.functional import masked_softmax
from had.attention.weighting import WEIGHTINGS, binary_weights


def test_binary_weights_by_hand() -> None:
    """Softmax of (ln 6, ln 3, ln 1, .) is (.6, .3, .1): the mean of three keys is 1/3."""
    scores = torch.tensor([[6.0, 3.0, 1.0, 9.0], [5.0, 5.0, 1.0, 9.0]]).log()
    mask = torch.tensor([[True, True, True, False], [True, True, True, False]])
    weights = binary_weights(scores, mask)
    torch.testing.assert_close(weights, torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0]]))


def test_the_gradient_of_binary_weights_is_the_softmax_s() -> None:
    scores = torch.randn(2, 3, 4, 9, generator=torch.Generator().manual_seed(0))
    mask = torch.rand(scores.shape, generator=torch.Generator().manual_seed(1)) > 0.3
    upstream = torch.randn(scores.shape, generator=torch.Generator().manual_seed(2))
    gradients = []
    for weighting in (binary_weights, masked_softmax):
        leaf = scores.clone().requires_grad_()
        (weighting(leaf, mask) * upstream).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_rows_sum_to_one_or_are_empty(name: str) -> None:
    scores = torch.randn(2, 3, 4, 9, generator=torch.Generator().manual_seed(0))
    mask = torch.rand(scores.shape, generator=torch.Generator().manual_seed(1)) > 0.5
    mask[0, 0, 0] = False
    weights = WEIGHTINGS[name](scores, mask)
    assert not weights[~mask].any()
    torch.testing.assert_close(weights.sum(-1), mask.any(-1).float())


@pytest.mark.parametrize("name", ["eager", "reference"])
def test_backends_weigh_as_the_call_says(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    query, key, value = (torch.randn(1, 2, 6, 8, generator=generator) for _ in range(3))
    call = AttentionCall(query, key, value, n=4, gain=0.3, weights="binary")
    output = BACKENDS[name].attend(call)
    scores = 0.3 * query @ key.transpose(-1, -2)
    kept = scores >= scores.topk(4).values[..., -1:]
    torch.testing.assert_close(output, binary_weights(scores, kept) @ value)


def test_the_row_kernels_leave_binary_weights_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("had.attention.backends.triton_rows.runs_interpreted", lambda device: True)
    x = torch.ones(1, 1, 4, 8)
    softmax = AttentionCall(x, x, x, n=2, gain=1.0)
    binary = AttentionCall(x, x, x, n=2, gain=1.0, weights="binary")
    assert BACKENDS["triton"].supports(softmax)
    assert not BACKENDS["triton"].supports(binary)
