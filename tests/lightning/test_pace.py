"""A pace is a learning rate of its own, for parts of parameters too."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from had.lightning.pace import Pace


def trained(parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """After five steps towards fixed targets."""
    generator = torch.Generator().manual_seed(1)
    targets = [torch.randn(p.shape, generator=generator) for p in parameters]
    for _ in range(5):
        optimizer.zero_grad()
        pairs = zip(parameters, targets, strict=True)
        torch.stack([(p - t).square().sum() for p, t in pairs]).sum().backward()
        optimizer.step()
    return [p.detach() for p in parameters]


def weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(6, 3, generator=generator)) for _ in range(2)]


def test_whole_weights_learn_as_a_group_with_a_greater_rate() -> None:
    groups, paced = weights(), weights()
    rates = [{"params": groups[:1], "lr": 0.2}, {"params": groups[1:], "lr": 0.02}]
    expected = trained(groups, torch.optim.AdamW(rates, weight_decay=0.1))
    optimizer = torch.optim.AdamW(paced, lr=0.02, weight_decay=0.1)
    Pace([paced[0].detach()], 10).watch(optimizer)
    for found, wanted in zip(trained(paced, optimizer), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_rows_learn_faster_than_the_rest_of_their_parameter() -> None:
    slow, fast, mixed = weights()[:1], weights()[:1], weights()[:1]
    trained(slow, torch.optim.SGD(slow, lr=0.01))
    trained(fast, torch.optim.SGD(fast, lr=0.04))
    optimizer = torch.optim.SGD(mixed, lr=0.01)
    Pace([mixed[0].detach().narrow(0, 0, 2)], 4).watch(optimizer)
    trained(mixed, optimizer)
    torch.testing.assert_close(mixed[0][:2], fast[0][:2])
    torch.testing.assert_close(mixed[0][2:], slow[0][2:])
