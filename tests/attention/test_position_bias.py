"""The relative-position bias: its table by hand, and its way through a timm model."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from had.attention import timm as adapter
from had.attention.options import AttentionGeometry
from had.attention.position_bias import RelativePositionBias, entries
from had.attention.recorded import RecordedAttention
from had.errors import HadError
from had.lightning.parameters import is_matrix
from had.models.convert import binarize
from tests.models.zoo import ZOO, build


def test_pairs_of_patches_by_hand() -> None:
    """A row of three patches: distances -2 .. 2 are entries 0 .. 4."""
    assert entries((1, 3), 0).tolist() == [[2, 1, 0], [3, 2, 1], [4, 3, 2]]


def test_tokens_before_the_patches_have_three_entries() -> None:
    assert entries((1, 2), 1).tolist() == [[5, 3, 3], [4, 1, 0], [4, 2, 1]]
    assert entries((1, 1), 2).tolist() == [[3, 3, 1], [3, 3, 1], [2, 2, 0]]


@pytest.mark.parametrize(("grid", "prefix"), [((14, 14), 1), ((3, 5), 2), ((4, 4), 0)])
def test_patches_share_an_entry_exactly_when_they_lie_alike(
    grid: tuple[int, int], prefix: int
) -> None:
    rows, columns = grid
    places = entries(grid, prefix)
    assert int(places.max()) + 1 == (2 * rows - 1) * (2 * columns - 1) + (3 if prefix else 0)
    seen: dict[tuple[int, int], int] = {}
    for query in range(rows * columns):
        for key in range(rows * columns):
            offset = (query // columns - key // columns, query % columns - key % columns)
            entry = int(places[prefix + query, prefix + key])
            assert seen.setdefault(offset, entry) == entry
    assert len(set(seen.values())) == len(seen)


def test_each_head_has_its_own_entries_and_they_learn() -> None:
    bias = RelativePositionBias(2, (1, 3), 0)
    with torch.no_grad():
        bias.table.copy_(torch.arange(10.0))
    assert bias().shape == (1, 2, 3, 3)
    assert bias()[0, 0, 0].tolist() == [2, 1, 0]
    assert bias()[0, 1, 2].tolist() == [9, 8, 7]
    bias()[0, 0, 0, 0].backward()
    assert bias.table.grad.nonzero().flatten().tolist() == [2]


def test_it_starts_small_and_is_not_decayed() -> None:
    torch.manual_seed(0)
    bias = RelativePositionBias(12, (14, 14), 1)
    assert bias.table.std().item() == pytest.approx(0.02, rel=0.1)
    assert not any(is_matrix(parameter) for parameter in bias.parameters())
    assert list(bias.state_dict()) == ["table"]


class _Wishful(RecordedAttention):
    """A core whose options ask for a bias."""

    class options:
        position_bias = True


@pytest.mark.parametrize("name", ["timm_vit", "timm_deit_distilled"])
def test_a_timm_model_adds_it_to_the_scores_of_every_layer(name: str) -> None:
    model, images = build(name), ZOO[name].inputs()["pixel_values"]
    plain = model(images)
    adapter.attach(model, _Wishful)
    layers = [module for module in model.modules() if isinstance(module, adapter.CoreAttention)]
    for layer in layers:
        nn.init.zeros_(layer.position_bias.table)
    torch.testing.assert_close(model(images), plain)
    nn.init.trunc_normal_(layers[0].position_bias.table)
    assert not torch.allclose(model(images), plain)
    assert torch.equal(layers[0].core.record.bias, layers[0].position_bias())


def test_it_joins_a_bias_that_is_given() -> None:
    model = build("timm_vit")
    adapter.attach(model, _Wishful)
    layer = model.blocks[0].attn
    given = torch.zeros(1, 1, 17, 17)
    given[..., 5] = -math.inf
    layer(torch.randn(1, 17, 32), attn_mask=given)
    expected: Tensor = layer.position_bias() + given
    assert torch.equal(layer.core.record.bias, expected)


def test_without_the_wish_there_is_none_and_no_weight() -> None:
    model = build("timm_vit")
    adapter.attach(model, RecordedAttention)
    assert not any("position_bias" in name for name in model.state_dict())


def test_a_model_without_a_grid_of_patches_is_refused() -> None:
    with pytest.raises(HadError, match="no fixed grid of patches; set position_bias to false"):
        adapter.make_position_bias(nn.Linear(2, 2), AttentionGeometry("attn", 2, 2, 8))


def test_models_of_transformers_refuse_a_bias_of_patches() -> None:
    config = BertConfig(
        vocab_size=11,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    recipe = {"scale": "mean_abs", "position_bias": True}
    with pytest.raises(HadError, match="position_bias is for timm's vision transformers"):
        binarize(BertModel(config), n=3, binarization=recipe)
