"""Students generate from the binary cache what they would without any cache."""

from __future__ import annotations

import copy
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import EncoderDecoderCache

import had
from had.attention.binarize import RELAXATIONS
from had.attention.module import hamming_layers, set_relaxation
from had.models.convert import record_attention
from tests.models.zoo import ZOO, build

DECODERS = ["llama_lm", "qwen2", "qwen3", "gpt2_lm", "mistral", "gemma3", "t5"]
STEPS = 40
WITHOUT = {"use_cache": False}


def student(name: str, n: int | float = 6, recipe: Any = "had_plus", minimum: int = 1) -> nn.Module:
    """A decoder that sees 6 keys of each row, and never ends a text by itself."""
    model = build(name)
    model.generation_config.eos_token_id = None
    model.generation_config.decoder_start_token_id = 0  # asked for where an encoder reads
    return had.binarize(model, n, recipe, [ZOO[name].inputs()], minimum=minimum)


def prompt() -> dict[str, Tensor]:
    """Two texts of 9 and 4 tokens, padded on the left."""
    ids = torch.randint(5, 90, (2, 9), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    ids[1, :5] = mask[1, :5] = 0
    return {"input_ids": ids, "attention_mask": mask}


def generate(model: nn.Module, inputs: dict[str, Tensor], **wishes: Any) -> Any:
    torch.manual_seed(7)
    return model.generate(
        **inputs,
        return_dict_in_generate=True,
        output_logits=True,
        **{"do_sample": False, "max_new_tokens": STEPS, **wishes},
    )


def assert_same(one: Any, other: Any) -> None:
    assert torch.equal(one.sequences, other.sequences)
    torch.testing.assert_close(torch.stack(one.logits), torch.stack(other.logits))


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("wishes", [{}, {"do_sample": True, "temperature": 0.7}])
def test_every_step_gives_the_logits_of_no_cache(name: str, wishes: dict[str, Any]) -> None:
    model = student(name)
    cached = generate(model, prompt(), **wishes)
    assert_same(cached, generate(model, prompt(), **WITHOUT, **wishes))
    cache = cached.past_key_values
    parts = [cache]
    if isinstance(cache, EncoderDecoderCache):
        parts = [cache.self_attention_cache, cache.cross_attention_cache]
    assert all(isinstance(part, had.BinaryKeyCache) for part in parts)
    assert all(layer.keys.dtype == torch.int32 for part in parts for layer in part.layers)


@pytest.mark.parametrize("name", ["llama_lm", "mistral"])
def test_many_steps_give_the_logits_of_one_pass(name: str) -> None:
    """300 steps, over which the buffers grow several times and the window leaves the prompt."""
    model = student(name, n=0.1, minimum=4)
    inputs = {"input_ids": prompt()["input_ids"][:1]}
    steps = generate(model, inputs, max_new_tokens=300)
    with torch.no_grad():
        at_once = model(input_ids=steps.sequences, use_cache=False).logits
    torch.testing.assert_close(torch.stack(steps.logits, dim=1), at_once[:, 8:-1])


@pytest.mark.parametrize("name", ["llama_lm", "gemma3", "t5"])
def test_beams(name: str) -> None:
    model = student(name)
    wishes = {"num_beams": 3, "num_return_sequences": 2}
    assert_same(generate(model, prompt(), **wishes), generate(model, prompt(), **WITHOUT, **wishes))


def test_a_padded_text_goes_on_like_the_same_text_alone() -> None:
    model, inputs = student("llama_lm"), prompt()
    together = generate(model, inputs)
    alone = generate(model, {name: x[1:, 5:] for name, x in inputs.items()})
    assert torch.equal(together.sequences[1, 5:], alone.sequences[0])
    together, alone = (torch.stack(result.logits) for result in (together, alone))
    torch.testing.assert_close(together[:, 1:], alone)


@pytest.mark.parametrize("name", ["llama_lm", "mistral"])
def test_speculative_decoding_crops(name: str) -> None:
    model = student(name)
    inputs = {name: x[:1] for name, x in prompt().items()}
    guessed = generate(model, inputs, prompt_lookup_num_tokens=3)
    assert_same(guessed, generate(model, inputs, **WITHOUT))
    assistant = student(name, n=3)
    assert_same(generate(model, inputs, assistant_model=assistant), guessed)


@pytest.mark.parametrize("name", ["qwen3", "mistral"])
@pytest.mark.parametrize(("n", "minimum"), [(6, 1), (0.3, 1), (0.2, 4)])
def test_a_text_in_pieces_gives_what_it_gives_at_once(
    name: str, n: int | float, minimum: int
) -> None:
    """A row keeps as many keys in decoding as in training, by whatever rule."""
    model = student(name, n, minimum=minimum)
    cache = had.BinaryKeyCache(model.config)
    ids = torch.randint(5, 90, (2, 30), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        at_once = model(input_ids=ids, use_cache=False).logits
        parts = [
            model(input_ids=piece, past_key_values=cache).logits
            for piece in ids.split([11, 1, 8, 10], dim=1)
        ]
    torch.testing.assert_close(torch.cat(parts, dim=1), at_once)


def test_a_cache_of_the_users_is_used_and_goes_on() -> None:
    model, inputs = student("llama_lm"), {"input_ids": prompt()["input_ids"][:1]}
    cache = had.BinaryKeyCache(model.config)
    first = generate(model, inputs, past_key_values=cache)
    assert cache.get_seq_length() == 9 + STEPS - 1
    further = generate(model, {"input_ids": first.sequences}, past_key_values=cache)
    assert_same(further, generate(model, {"input_ids": first.sequences}, **WITHOUT))


@pytest.mark.parametrize("implementation", ["dynamic", "static"])
def test_another_cache_can_be_asked_for(implementation: str) -> None:
    model = student("llama_lm")
    result = generate(model, prompt(), cache_implementation=implementation)
    assert not isinstance(result.past_key_values, had.BinaryKeyCache)
    assert_same(result, generate(model, prompt(), **WITHOUT))


def test_narrow_values_stay_near_and_the_output_keeps_its_type() -> None:
    model = student("llama_lm")
    ids = prompt()["input_ids"][:1]
    with torch.no_grad():
        exact = model(input_ids=ids, use_cache=False).logits
        for dtype, tolerance in ((torch.bfloat16, 2**-8), (torch.float8_e4m3fn, 2**-3)):
            cache = had.BinaryKeyCache(value_dtype=dtype)
            logits = model(input_ids=ids, past_key_values=cache).logits
            assert logits.dtype == exact.dtype
            assert 0 < (logits - exact).norm() / exact.norm() < tolerance


def test_only_students_get_it() -> None:
    teacher = record_attention(build("llama_lm"))
    cache = generate(teacher, prompt()).past_key_values
    assert not isinstance(cache, had.BinaryKeyCache)


def test_a_copied_pickled_or_loaded_student_generates_by_itself(tmp_path: Path) -> None:
    model = student("llama_lm")
    had.save(model, tmp_path)
    wanted = generate(model, prompt())
    copies = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        had.load_student(tmp_path),
    ]
    with torch.no_grad():
        model.lm_head.weight.zero_()
    for each in copies:
        each.generation_config.eos_token_id = None
        result = generate(each, prompt())
        assert isinstance(result.past_key_values, had.BinaryKeyCache)
        assert_same(result, wanted)


@pytest.mark.parametrize("option", [("scale", "mean_abs"), ("weights", "binary")])
def test_what_signs_do_not_tell_is_refused_by_the_layer(option: tuple[str, str]) -> None:
    model = student("llama_lm", recipe=dict([option]))
    with pytest.raises(ValueError, match=r"layers\.0\.self_attn.*" + "=".join(option)):
        model(**prompt(), past_key_values=had.BinaryKeyCache(model.config))


def test_a_stage_before_the_sign_generates_with_a_float_cache(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = student("llama_lm")
    set_relaxation(model, RELAXATIONS["soft"](2.0))
    with caplog.at_level(logging.WARNING, logger="had"):
        result = generate(model, prompt())
    assert not isinstance(result.past_key_values, had.BinaryKeyCache)
    assert "float cache: its keys are not signs at present (SoftTanh)" in caplog.text
    assert_same(result, generate(model, prompt(), **WITHOUT))
    with pytest.raises(ValueError, match="SoftTanh"):
        model(**prompt(), past_key_values=had.BinaryKeyCache(model.config))
    hamming_layers(model)[0].calibrating = True
    with pytest.raises(ValueError, match="calibration"):
        model(**prompt(), past_key_values=had.BinaryKeyCache(model.config))
