"""The attention that travels with exported students, against the oracle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from had.attention.functional import hamming_attention
from had.attention.module import HammingAttention
from had.attention.options import AttentionGeometry, AttentionOptions
from had.attention.position_bias import entries
from had.attention.topn import ScaledN
from had.models.template import attention as template
from had.models.template.timm import RelativePositionBias

SETTINGS = {"n": 3, "minimum": 1, "scale": "head_scale", "relaxation": "sign", "weights": "softmax"}


def tensors(queries: int = 7, keys: int = 7, dim: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Four query heads, two key heads; few dimensions make many ties."""
    torch.manual_seed(0)
    return (
        torch.randn(2, 4, queries, dim),
        torch.randn(2, 2, keys, dim),
        torch.randn(2, 2, keys, 5),
    )


def core(**changes: Any) -> template.HammingCore:
    torch.manual_seed(1)
    made = template.HammingCore({**SETTINGS, **changes}, heads=4, kv_heads=2).eval()
    for parameter in made.parameters():
        parameter.data.normal_()
    return made


@pytest.mark.parametrize("n", [1, 3, 7, 100, 0.3, 1.0, ScaledN(0.3, 4)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_it_is_the_oracle(n: Any, masked: bool, biased: bool) -> None:
    query, key, value = tensors()
    query[0, 0, 0], key[0, 0, 0] = 0.0, -0.0  # both count as positive
    mask = torch.rand(2, 1, 7, 7) > 0.4 if masked else None
    if mask is not None:
        mask[0, 0, 2] = False  # a row that may see nothing
    bias = torch.randn(1, 4, 7, 7) if biased else None
    keep = (n.share, n.minimum) if isinstance(n, ScaledN) else (n, 1)
    layer = core(n=keep[0], minimum=keep[1])
    with torch.no_grad():
        found = layer(query, key, value, mask, bias, 0.3)
        expected = hamming_attention(
            *(query, key, value),
            n=n,
            sigma_query=layer.query.log_sigma.exp(),
            sigma_key=layer.key.log_sigma.exp(),
            scale=0.3,
            mask=mask,
            bias=bias,
        )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", ["frozen_sigma", "head_scale", "mean_abs"])
@pytest.mark.parametrize("relaxation", ["sign", "identity"])
@pytest.mark.parametrize("weights", ["softmax", "binary"])
def test_it_is_the_student_s_module(scale: str, relaxation: str, weights: str) -> None:
    query, key, value = tensors()
    chosen = {"n": 3, "scale": scale, "relaxation": relaxation, "weights": weights}
    options = AttentionOptions(**chosen, backend="reference")
    student = HammingAttention(AttentionGeometry("layer", 4, 2, 6), options)
    layer = core(**chosen)
    for tensor in layer.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape) + 0.5)
    student.load_state_dict(layer.state_dict())
    mask = torch.ones(2, 1, 1, 7, dtype=torch.bool)
    mask[1, ..., 4:] = False
    with torch.no_grad():
        assert torch.equal(layer(query, key, value, mask), student(query, key, value, mask=mask))


def test_long_texts_are_worked_off_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = tensors(queries=9, keys=11)
    mask, bias = torch.rand(2, 1, 9, 11) > 0.3, torch.randn(4, 1, 11)
    layer = core()
    with torch.no_grad():
        whole = layer(query, key, value, mask, bias)
        monkeypatch.setattr(template, "MAP_ELEMENTS", 2 * 4 * 11 * 4)  # four rows at a time
        parts = layer(query, key, value, mask, bias)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lower_precision_is_that_of_values_alone(dtype: torch.dtype) -> None:
    query, key, value = (each.to(dtype) for each in tensors())
    layer = core()
    with torch.no_grad():
        found = layer(query, key, value)
        exact = layer(query.float(), key.float(), value.float())
    assert found.dtype == dtype
    assert torch.equal(found, exact.to(dtype))


@pytest.mark.parametrize(("grid", "prefix"), [((3, 4), 1), ((2, 2), 0), ((1, 5), 2)])
def test_positions_are_numbered_as_in_training(grid: tuple[int, int], prefix: int) -> None:
    bias = RelativePositionBias(2, grid, prefix)
    assert torch.equal(bias.places(), entries(grid, prefix))
    assert bias.table.numel() == 2 * (int(entries(grid, prefix).max()) + 1)
