"""The weights named as those of queries and keys are these and no others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import had
from had.attention.module import HammingAttention, hamming_layers
from had.attention.projections import query_key_weights
from had.errors import HadError
from tests.models.zoo import ZOO, build, output


class _Seen(Exception):
    pass


def first_layer(model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values that reach the first layer; later ones depend on its weights."""
    seen: list[tuple[Tensor, ...]] = []

    def look(_: HammingAttention, args: tuple[Tensor, ...], given: dict[str, Any]) -> None:
        seen.append(args)
        raise _Seen

    hook = hamming_layers(model)[0].register_forward_pre_hook(look, with_kwargs=True)
    with pytest.raises(_Seen), torch.no_grad():
        output(model, inputs)
    hook.remove()
    query, key, value = seen[0]
    return query, key, value


@pytest.mark.parametrize("name", ZOO)
def test_they_change_queries_and_keys_and_no_value(name: str) -> None:
    model, inputs = build(name), ZOO[name].inputs()
    had.binarize(model, 3)
    before = first_layer(model, inputs)
    weights = query_key_weights(model)
    for weight in weights:
        weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    query, key, value = first_layer(model, inputs)
    assert not torch.allclose(query, before[0])
    assert not torch.allclose(key, before[1])
    assert torch.equal(value, before[2])


@pytest.mark.parametrize("name", ZOO)
def test_nothing_else_changes_queries_and_keys_of_given_states(name: str) -> None:
    # All other weights of the attention layers are drawn anew: the states that enter the first
    # layer stay, and so must its queries and keys.
    model, inputs = build(name), ZOO[name].inputs()
    had.binarize(model, 3)
    query, key, value = first_layer(model, inputs)
    kept = [weight.clone() for weight in query_key_weights(model)]
    for layer in layers_with_cores(model):
        for projection in layer.children():
            if isinstance(projection, nn.Linear) or "Conv1D" in type(projection).__name__:
                for parameter in projection.parameters():
                    nn.init.normal_(parameter)
    for weight, old in zip(query_key_weights(model), kept, strict=True):
        weight.copy_(old)
    again = first_layer(model, inputs)
    assert torch.equal(again[0], query)
    assert torch.equal(again[1], key)
    assert not torch.allclose(again[2], value)


def layers_with_cores(model: nn.Module) -> list[nn.Module]:
    return [
        module
        for module in model.modules()
        if any(isinstance(child, HammingAttention) for child in module.children())
    ]


def test_frozen_weights_are_left_out() -> None:
    model = build("bert")
    had.binarize(model, 3)
    everything = len(query_key_weights(model))
    layers_with_cores(model)[0].get_submodule("query").requires_grad_(False)
    assert len(query_key_weights(model)) == everything - 2


@pytest.mark.parametrize(("recipe", "scales"), [("had", 0), ("had_plus", 4)])
def test_learned_scales_are_among_them(recipe: str, scales: int) -> None:
    model = build("bert")
    had.binarize(model, 3, recipe)
    projections = 2 * 2 * 2  # layers, queries and keys, weights and biases
    assert len(query_key_weights(model)) == projections + scales


def test_unknown_projections_are_refused_by_layer() -> None:
    model = build("bert")
    had.binarize(model, 3)
    layer = layers_with_cores(model)[1]
    layer.add_module("questions", layer.get_submodule("query"))
    del layer.query
    with pytest.raises(
        HadError, match=r"layer 'bert\.encoder\.layer\.1.*query_key_learning_rate=null"
    ):
        query_key_weights(model)
