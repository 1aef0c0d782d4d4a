"""Ones of queries and keys, counted while a student runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import had
from had.attention.module import hamming_layers
from had.commands.inspection import count_bits, inspect
from tests.models.zoo import ZOO, build


@pytest.mark.parametrize("name", ["bert", "llama", "timm_vit"])
def test_shares_are_those_of_the_real_tokens(name: str) -> None:
    batch = ZOO[name].inputs()
    student = had.binarize(build(name), 4, calibration=[batch]).eval()
    seen = []
    layer = hamming_layers(student)[1]
    handle = layer.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(args), with_kwargs=True
    )
    with torch.no_grad():
        counters = count_bits(student, [batch, batch])
    handle.remove()
    real = batch.get("attention_mask", torch.ones(seen[0][0].shape[0], seen[0][0].shape[2])).bool()
    for role, x in zip(("query", "key"), seen[0], strict=False):
        tokens = x.transpose(1, 2)[real]  # (tokens, heads, head_dim)
        expected = (tokens >= 0).double().mean(dim=0)
        torch.testing.assert_close(
            torch.tensor(counters[1].shares(role), dtype=torch.float64), expected
        )
        assert counters[1].tokens[role] == 2 * len(tokens)
    assert not layer._forward_pre_hooks


def test_a_run_is_looked_at_with_its_own_data(tiny_run: Path) -> None:
    found = inspect(tiny_run)
    assert found.problem == ""
    assert found.tokens == 359 * 5  # a fifth of 1,797 digits, of 4 patches and a class token
    assert len(found.layers) == 2
    student = had.load_student(tiny_run / "student")
    for seen, layer in zip(found.layers, hamming_layers(student), strict=True):
        assert seen.sigma["query"] == pytest.approx([layer.query.sigma.item()])
        shares = [
            share for role in ("query", "key") for row in seen.bits[role].ones for share in row
        ]
        assert len(shares) == 2 * layer.geometry.heads * layer.geometry.head_dim
        assert all(0 <= share <= 1 for share in shares)
