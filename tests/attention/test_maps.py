"""Maps for pictures are those that the models really use."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import had
from had.attention.functional import expand_groups
from had.attention.maps import recorded_maps, rollout, watched_maps
from had.attention.module import hamming_layers
from had.models.convert import record_attention
from tests.models.test_adapters import watch_layers
from tests.models.zoo import ZOO, build, output


@pytest.mark.parametrize("name", ["timm_vit", "timm_deit_distilled", "vit"])
@pytest.mark.parametrize(
    "recipe",
    ["had", "had_plus", "topn_fp", "sab", "binary_attention", {"scale": "mean_abs", "recent": 2}],
    ids=str,
)
def test_a_students_map_times_its_values_is_its_output(name: str, recipe: Any) -> None:
    model, inputs = build(name), ZOO[name].inputs()
    had.binarize(model, 3, recipe, calibration=[inputs])
    calls = watch_layers(model)
    with watched_maps(model) as maps:
        output(model, inputs)
    output(model, inputs)  # no longer watched
    assert len(maps) == len(hamming_layers(model)) == 2
    for each, (layer, (_, _, value), _, result) in zip(maps, calls, strict=False):
        values = expand_groups(value, layer.geometry.heads)
        torch.testing.assert_close(each.weights @ values, result, atol=1e-6, rtol=1e-5)
        assert (each.kept.sum(-1) == 3).all()
        assert (each.weights[~each.kept] == 0).all()


def test_a_teachers_maps_are_softmax_attention() -> None:
    model, inputs = build("timm_vit"), ZOO["timm_vit"].inputs()
    record_attention(model)
    output(model, inputs)
    first = model.blocks[0].attn.core.record
    expected = (first.query @ first.key.mT * first.query.shape[-1] ** -0.5).softmax(-1)
    torch.testing.assert_close(recorded_maps(model)[0].weights, expected)


def test_rollout_of_two_layers_by_hand() -> None:
    """(A2 + I)/2 times (A1 + I)/2, the mean over two heads first."""
    first = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]]])
    second = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    expected = torch.tensor([[[0.625, 0.375], [0.5, 0.5]]])
    torch.testing.assert_close(rollout([first, second]), expected)
