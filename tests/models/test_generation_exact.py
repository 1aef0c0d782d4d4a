"""Students whose last keys are exact generate from bits and a few keys beside them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import EncoderDecoderCache

import had
from had.attention.backends.base import PackedCall
from had.attention.backends.cpu import CpuBackend
from had.attention.cache_layers import BinaryKeyLayer
from had.attention.module import hamming_layers
from tests.models.test_generation import (
    DECODERS,
    STEPS,
    WITHOUT,
    assert_same,
    generate,
    prompt,
    student,
)

RECENT = 3
RECIPE: dict[str, Any] = {"scale": "head_scale", "recent": RECENT}


def exact_student(name: str, n: int | float = 6, minimum: int = 1) -> nn.Module:
    return student(name, n, RECIPE, minimum)


@pytest.mark.parametrize("name", DECODERS)
def test_every_step_gives_the_logits_of_no_cache(name: str) -> None:
    model = exact_student(name)
    cached = generate(model, prompt())
    assert_same(cached, generate(model, prompt(), **WITHOUT))
    cache = cached.past_key_values
    if isinstance(cache, EncoderDecoderCache):  # an encoder's keys have no last one
        assert all(layer.recent == 0 for layer in cache.cross_attention_cache.layers)
        cache = cache.self_attention_cache
    assert isinstance(cache, had.BinaryKeyCache)
    assert all(layer.recent == RECENT for layer in cache.layers)


@pytest.fixture
def far_parts(monkeypatch: pytest.MonkeyPatch) -> list[PackedCall]:
    """The calls of which the CPU backend computes all but the exact keys."""
    pytest.importorskip("numba")
    calls: list[PackedCall] = []
    original = CpuBackend.attend_part

    def attend_part(self: CpuBackend, call: PackedCall, kept: Any) -> Any:
        calls.append(call)
        return original(self, call, kept)

    monkeypatch.setattr(CpuBackend, "attend_part", attend_part)
    return calls


@pytest.mark.parametrize("name", ["llama_lm", "mistral", "qwen2"])
@pytest.mark.parametrize(("n", "minimum"), [(6, 1), (0.3, 3)])
def test_bits_far_back_are_read_by_the_cpu_backend(
    far_parts: list[PackedCall], name: str, n: int | float, minimum: int
) -> None:
    """It generates what the eager backend does, and what comes out of a cache of floats."""
    model = exact_student(name, n, minimum)
    ours = generate(model, prompt())
    steps, layers = STEPS - 1, len(hamming_layers(model))  # the first token is that of the prompt
    assert len(far_parts) == steps * layers
    assert_same(ours, generate(model, prompt(), cache_implementation="dynamic"))
    for layer in hamming_layers(model):
        layer.options = replace(layer.options, backend="eager")
    assert_same(ours, generate(model, prompt()))
    assert len(far_parts) == steps * layers


def test_many_steps_give_the_logits_of_one_pass() -> None:
    model = exact_student("mistral", n=0.1, minimum=4)
    inputs = {"input_ids": prompt()["input_ids"][:1]}
    steps = generate(model, inputs, max_new_tokens=150)
    with torch.no_grad():
        at_once = model(input_ids=steps.sequences, use_cache=False).logits
    torch.testing.assert_close(torch.stack(steps.logits, dim=1), at_once[:, 8:-1])


@pytest.mark.parametrize("name", ["llama_lm", "t5"])
def test_beams(name: str) -> None:
    model, wishes = exact_student(name), {"num_beams": 3, "num_return_sequences": 2}
    assert_same(generate(model, prompt(), **wishes), generate(model, prompt(), **WITHOUT, **wishes))


@pytest.mark.parametrize("name", ["llama_lm", "mistral"])
def test_speculative_decoding_crops(name: str) -> None:
    model = exact_student(name)
    inputs = {name: x[:1] for name, x in prompt().items()}
    guessed = generate(model, inputs, prompt_lookup_num_tokens=3)
    assert_same(guessed, generate(model, inputs, **WITHOUT))


def test_a_text_in_pieces_gives_what_it_gives_at_once() -> None:
    model = exact_student("qwen3")
    cache = had.BinaryKeyCache(model.config, recent=RECENT)
    ids = torch.randint(5, 90, (2, 30), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        at_once = model(input_ids=ids, use_cache=False).logits
        pieces = ids.split([11, 1, 8, 10], dim=1)
        parts = [model(input_ids=piece, past_key_values=cache).logits for piece in pieces]
    torch.testing.assert_close(torch.cat(parts, dim=1), at_once)


def test_a_cache_without_exact_keys_is_refused() -> None:
    model = exact_student("llama_lm")
    with pytest.raises(ValueError, match=r"give had\.BinaryKeyCache\(\.\.\., recent=3\)"):
        model(**prompt(), past_key_values=had.BinaryKeyCache(model.config))


def test_exact_keys_take_the_room_of_so_many_keys() -> None:
    key, value = torch.randn(2, 3, 200, 64), torch.randn(2, 3, 200, 64)
    plain, exact = BinaryKeyLayer(), BinaryKeyLayer(recent=16)
    for layer in (plain, exact):
        layer.update(key.bfloat16(), value.bfloat16())
    assert exact.memory(5000)[0] - plain.memory(5000)[0] == 2 * 3 * 16 * 64 * 2
    assert exact.memory(5000)[1] == plain.memory(5000)[1]


def test_what_comes_with_the_words_are_the_last_keys() -> None:
    layer, key = BinaryKeyLayer(recent=4), torch.randn(1, 1, 100, 8)
    for start, end in ((0, 90), (90, 91), (91, 100)):
        words, _ = layer.update(key[:, :, start:end], key[:, :, start:end])
        assert torch.equal(words.exact, key[:, :, max(0, start - 3) : end])  # type: ignore[attr-defined]
    layer.crop(-9)
    words, _ = layer.update(key[:, :, 91:92], key[:, :, 91:92])
    assert torch.equal(words.exact, key[:, :, 88:92])  # type: ignore[attr-defined]


def test_no_more_is_taken_back_than_leaves_the_exact_keys() -> None:
    layer, key = BinaryKeyLayer(recent=4), torch.randn(1, 1, 100, 8)
    for start, end in ((0, 98), (98, 99), (99, 100)):
        layer.update(key[:, :, start:end], key[:, :, start:end])
    with pytest.raises(ValueError, match="exact keys of the tokens before are gone"):
        layer.crop(-67)
    layer.crop(-66)  # of 98 tokens 64 may be taken back, and the two after them
    words, _ = layer.update(key[:, :, 34:35], key[:, :, 34:35])
    assert torch.equal(words.exact, key[:, :, 31:35])  # type: ignore[attr-defined]
