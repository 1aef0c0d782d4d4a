"""Every model family: unchanged in full precision, and equal to the oracle layer by layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import had
from had.attention.binarize import RELAXATIONS
from had.attention.functional import hamming_attention
from had.attention.module import hamming_layers, set_relaxation
from had.attention.recorded import recorded_layers
from had.errors import HadError
from had.models.convert import record_attention
from tests.models.zoo import ZOO, build, output


@pytest.fixture(params=ZOO)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_without_relaxation_and_with_all_keys_nothing_changes(name: str) -> None:
    model, inputs = build(name), ZOO[name].inputs()
    before = output(model, inputs)
    had.binarize(model, n=64)
    set_relaxation(model, RELAXATIONS["identity"]())
    assert len(hamming_layers(model)) == ZOO[name].layers
    torch.testing.assert_close(output(model, inputs), before, atol=1e-5, rtol=1e-5)


def test_a_recorded_teacher_gives_the_same_outputs(name: str) -> None:
    model, inputs = build(name), ZOO[name].inputs()
    before = output(model, inputs)
    record_attention(model)
    torch.testing.assert_close(output(model, inputs), before, atol=1e-5, rtol=1e-5)
    assert all(layer.record is not None for layer in recorded_layers(model))


@pytest.mark.parametrize("scale", ["frozen_sigma", "head_scale", "mean_abs"])
def test_with_signs_every_layer_equals_the_oracle(name: str, scale: str) -> None:
    model, inputs = build(name), ZOO[name].inputs()
    had.binarize(model, 3, {"scale": scale}, calibration=[inputs])
    seen = watch_layers(model)
    changed = output(model, inputs)
    assert torch.isfinite(changed).all()
    assert len(seen) == ZOO[name].layers
    for layer, (query, key, value), given, result in seen:
        real = None if given["mask"] is None else given["mask"].any(1, keepdim=True).any(2)
        real = None if real is None else real.unsqueeze(-1)
        expected = hamming_attention(
            query,
            key,
            value,
            n=3,
            sigma_query=layer.query(query, real if query.shape[2] == key.shape[2] else None),
            sigma_key=layer.key(key, real),
            scale=given["scale"],
            mask=given["mask"],
            bias=given["bias"],
        )
        torch.testing.assert_close(result, expected, atol=1e-6, rtol=1e-5)


def watch_layers(model: nn.Module) -> list[tuple[Any, tuple[Tensor, ...], dict[str, Any], Tensor]]:
    """Collect every attention call from now on: layer, (q, k, v), keywords, output."""
    seen: list[Any] = []
    for layer in hamming_layers(model):
        layer.register_forward_hook(lambda *call: seen.append(call), with_kwargs=True)
    return seen


def test_padding_cannot_be_seen() -> None:
    model, inputs = build("bert"), ZOO["bert"].inputs()
    had.binarize(model, 3, calibration=[inputs])
    before = model(**inputs).logits
    inputs["input_ids"][1, 7:] = 33
    assert torch.equal(model(**inputs).logits, before)


def test_a_causal_model_does_not_look_ahead() -> None:
    model = build("gpt2")
    ids = torch.randint(5, 90, (1, 12))
    had.binarize(model, 3, {"scale": "frozen_sigma"}, calibration=[{"input_ids": ids}])
    before = model(input_ids=ids)[0]
    ids[0, 8:] = 3
    assert torch.equal(model(input_ids=ids)[0][:, :8], before[:, :8])


def test_gradients_reach_every_query_and_key_weight() -> None:
    model, inputs = build("bert"), ZOO["bert"].inputs()
    had.binarize(model, 4, "had_plus", calibration=[inputs])
    model(**inputs).logits.square().sum().backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None]
    assert missing == []
    query = [p.grad.abs().sum() for n, p in model.named_parameters() if "query.weight" in n]
    assert len(query) == 2
    assert all(total > 0 for total in query)


def test_the_second_conversion_is_refused() -> None:
    model = had.binarize(build("bert"))
    with pytest.raises(HadError, match="already"):
        had.binarize(model)


def test_what_cannot_be_converted_is_named_and_left_alone() -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2)

    with pytest.raises(HadError, match="Other"):
        had.binarize(Other())
    model = build("bert")
    model.bert.encoder.layer[1].extra = nn.MultiheadAttention(8, 2)
    with pytest.raises(HadError, match=r"encoder\.layer\.1\.extra"):
        had.binarize(model)
    assert hamming_layers(model) == []


def test_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(HadError, match=r"had, had_plus"):
        had.binarize(build("bert"), binarization="hda")


def test_calibration_without_batches_is_an_error() -> None:
    with pytest.raises(HadError, match="no batches"):
        had.binarize(build("bert"), calibration=[])


def test_wrong_heads_are_refused_by_name() -> None:
    model = had.binarize(build("bert"))
    layer = hamming_layers(model)[0]
    with pytest.raises(ValueError, match=r"encoder\.layer\.0\.attention\.self"):
        layer(torch.zeros(1, 3, 5, 8), torch.zeros(1, 3, 5, 8), torch.zeros(1, 3, 5, 8))
