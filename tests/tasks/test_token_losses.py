"""Losses of tokens against torch's own on the whole tensor, metrics against hand-computed cases."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from had.tasks import token_losses
from had.tasks.token_losses import (
    IGNORED,
    AnswerAccuracy,
    TokenMetrics,
    token_cross_entropy,
    token_divergence,
)


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(2, 9, 7, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["whole", "chunks of two rows"])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "whole":
        monkeypatch.setattr(token_losses, "_CHUNK", 2 * 7)


def _gradient(loss: Tensor, logits: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, logits)
    return found


@pytest.mark.usefixtures("chunk")
def test_cross_entropy_is_the_mean_over_predicted_tokens(logits: Tensor) -> None:
    labels = torch.arange(18).view(2, 9).remainder(7).int()
    labels[0, 3:] = IGNORED
    logits.requires_grad_()
    found = token_cross_entropy(logits, labels)
    wanted = F.cross_entropy(logits.flatten(0, 1), labels.flatten().long())
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(_gradient(found, logits), _gradient(wanted, logits))


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("labelled", [(), (2, 3, 11)])
def test_divergence_is_the_mean_over_predicted_tokens(
    logits: Tensor, labelled: tuple[int, ...]
) -> None:
    teacher = logits.roll(1, dims=-1) * 1.5
    logits.requires_grad_()
    p, q = teacher.softmax(-1), logits.softmax(-1)
    rows = (p * (p.log() - q.log())).sum(-1).flatten()
    labels = torch.full((18,), IGNORED)
    labels[list(labelled)] = 1
    wanted = rows[list(labelled)].mean() if labelled else rows.mean()
    found = token_divergence(logits, teacher, labels.view(2, 9) if labelled else None)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(_gradient(found, logits), _gradient(wanted, logits))


def test_half_precision_logits_are_softened_in_float32(logits: Tensor) -> None:
    half = logits.bfloat16()
    labels = torch.zeros(2, 9, dtype=torch.int32)
    assert token_cross_entropy(half, labels).dtype == torch.float32
    torch.testing.assert_close(
        token_cross_entropy(half, labels), token_cross_entropy(half.float(), labels)
    )


def test_equal_logits_have_the_perplexity_of_their_number() -> None:
    """Four equally likely tokens are two bits; of two bytes each, that is one bit a byte."""
    metric = TokenMetrics(bytes_per_token=2.0)
    for length in (3, 5):
        metric.update(torch.zeros(1, length, 4), torch.zeros(1, length, dtype=torch.int32))
    found = {name: float(value) for name, value in metric.compute().items()}
    wanted = {
        "loss": math.log(4),
        "perplexity": 4.0,
        "byte_perplexity": 2.0,
        "bits_per_byte": 1.0,
    }
    assert found == pytest.approx(wanted)


def test_tokens_count_equally_over_batches() -> None:
    metric = TokenMetrics(1.0)
    sure = torch.tensor([[[50.0, 0.0]]])
    metric.update(sure.expand(1, 3, 2), torch.zeros(1, 3, dtype=torch.int32))
    metric.update(torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=torch.int32))
    assert float(metric.compute()["loss"]) == pytest.approx(math.log(2) / 4)


def test_an_answer_counts_only_if_all_its_tokens_are_right() -> None:
    labels = torch.tensor([[IGNORED, 1, 2], [IGNORED, 1, 2], [IGNORED, IGNORED, 0]])
    predicted = torch.tensor([[0, 1, 2], [2, 1, 0], [1, 1, 0]])
    metric = AnswerAccuracy()
    metric.update(F.one_hot(predicted, 3).float(), labels)
    assert float(metric.compute()) == pytest.approx(2 / 3)
