"""The gain of decoding is formed once, and again when what it is formed from may have changed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from had.attention.bits import pack_signs
from had.attention.module import HammingAttention
from had.attention.options import AttentionGeometry, AttentionOptions

GEOMETRY = AttentionGeometry("layer", heads=4, kv_heads=2, head_dim=32)


def core_of(scale: str) -> HammingAttention:
    return HammingAttention(GEOMETRY, AttentionOptions(n=3, scale=scale)).eval()


def gain(core: HammingAttention, scale: float = 0.5) -> Tensor:
    with torch.no_grad():
        return core._gain_of_bits(torch.empty(0), scale)


def expected(core: HammingAttention, scale: float = 0.5) -> Tensor:
    query, key = (part(torch.empty(0), None).detach() for part in (core.query, core.key))
    return scale * query * (key if key.dim() == 0 else key.repeat_interleave(2, 0))


def weights(core: HammingAttention) -> list[Tensor]:
    return [*core.parameters(), *core.buffers()]


def in_place(core: HammingAttention) -> None:
    with torch.no_grad():
        weights(core)[0].add_(0.3)


def loaded(core: HammingAttention) -> None:
    core.load_state_dict({name: x + 0.7 for name, x in core.state_dict().items()})


def assigned(core: HammingAttention) -> None:
    state = {name: x + 0.2 for name, x in core.state_dict().items()}
    core.load_state_dict(state, assign=True)


def without_a_trace(core: HammingAttention) -> None:
    """As a replayed graph changes weights."""
    core.train()
    weights(core)[1].data.fill_(0.9)
    core.eval()


def converted(core: HammingAttention) -> None:
    core.double()
    weights(core)[0].data.fill_(0.25)


CHANGES = [in_place, loaded, assigned, without_a_trace, converted]


@pytest.mark.parametrize("scale", ["frozen_sigma", "head_scale"])
@pytest.mark.parametrize("change", CHANGES, ids=[change.__name__ for change in CHANGES])
def test_it_follows_the_weights(scale: str, change: Callable[[nn.Module], None]) -> None:
    core = core_of(scale)
    first = gain(core)
    assert gain(core) is first
    assert torch.equal(first, expected(core))
    change(core)
    after = gain(core)
    assert not torch.equal(after, first)
    assert torch.equal(after, expected(core))
    assert gain(core) is after


def test_every_scale_of_the_dot_product_has_its_own() -> None:
    core = core_of("head_scale")
    assert torch.equal(gain(core, 0.5), expected(core, 0.5))
    assert torch.equal(gain(core, 0.25), expected(core, 0.25))


def test_training_forms_it_every_time_and_with_gradients() -> None:
    core = core_of("head_scale")
    assert core._gain_of_bits(torch.empty(0), 0.5).requires_grad
    core.train()
    assert gain(core) is not gain(core)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda core: pickle.loads(pickle.dumps(core))])
def test_a_copy_has_its_own(copied: Callable[[HammingAttention], HammingAttention]) -> None:
    core = core_of("head_scale")
    gain(core)
    other = copied(core)
    loaded(other)
    assert torch.equal(gain(other), expected(other))
    assert torch.equal(gain(core), expected(core))


def test_inference_mode_leaves_one_that_can_be_used_outside() -> None:
    core = core_of("head_scale")
    with torch.inference_mode():
        first = core._gain_of_bits(torch.empty(0), 0.5)
    assert not first.is_inference()
    assert gain(core) is first
    assert torch.equal(first, expected(core))


def test_weights_made_in_inference_mode_count_no_changes_and_are_read_every_time() -> None:
    with torch.inference_mode():
        core = core_of("frozen_sigma")
        before = core._gain_of_bits(torch.empty(0), 0.5)
        core.query.sigma.fill_(3.0)
        assert core._gain_of_bits(torch.empty(0), 0.5) == 3 * before


def test_decoding_uses_the_weights_of_now() -> None:
    """The whole layer, from bits: other weights give another output."""
    core, (query, key, value) = core_of("head_scale"), torch.randn(3, 1, 4, 9, 32).unbind()
    words, value = pack_signs(key[:, :2]), value[:, :2]

    def output() -> Tensor:
        with torch.no_grad():
            return core(query[:, :, -1:], words, value)

    first = output()
    loaded(core)
    fresh = core_of("head_scale")
    fresh.load_state_dict(core.state_dict())
    second, core = output(), fresh
    assert not torch.equal(first, second)
    assert torch.equal(output(), second)
