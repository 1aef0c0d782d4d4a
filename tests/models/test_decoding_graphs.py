"""Decoding in fixed places gives what decoding in growing ones gives, whoever replays the step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

import had
from had.models.decoding_graphs import stepping
from tests.models.test_generation import assert_same, generate, prompt, student


class Recorder:
    """In place of CUDA graphs: does the work again, counts captures and replays."""

    def __init__(self) -> None:
        self.captures = self.replays = 0

    def __call__(self, function: Callable[[], ModelOutput]) -> Callable[[], ModelOutput]:
        self.captures += 1

        def replay() -> ModelOutput:
            self.replays += 1
            return function()

        return replay


def with_steps(model: Any, inputs: dict[str, Any], **wishes: Any) -> tuple[Any, Recorder]:
    recorder = Recorder()
    with stepping(model, recorder):
        return generate(model, inputs, **wishes), recorder


@pytest.mark.parametrize("name", ["llama_lm", "qwen3", "gpt2_lm"])
@pytest.mark.parametrize(("recipe", "n"), [("had_plus", 6), ("had_recent", 20), ("had_plus", 0.3)])
def test_logits_are_those_of_the_growing_cache(name: str, recipe: str, n: int | float) -> None:
    """Padded on the left; over 90 tokens the buffers grow, and every time there is a new graph."""
    model = student(name, n=n, recipe=recipe)
    wanted = generate(model, prompt(), max_new_tokens=90)
    found, recorder = with_steps(model, prompt(), max_new_tokens=90)
    assert_same(found, wanted)
    assert recorder.captures == 2
    assert recorder.replays > 60
    assert found.past_key_values.get_seq_length() == wanted.past_key_values.get_seq_length()


def test_a_text_goes_on_after_eager_steps_and_crops() -> None:
    """Places are told anew, and what was seen behind them is forgotten."""
    model = student("llama_lm", n=20, recipe="had_recent")
    ids = torch.randint(5, 90, (1, 30), generator=torch.Generator().manual_seed(1))

    def decode(tokens: list[int], cache: had.BinaryKeyCache) -> torch.Tensor:
        logits = []
        for place in tokens:
            given = {
                "input_ids": ids[:, place : place + 1],
                "position_ids": torch.tensor([[place]]),
            }
            logits.append(model(**given, past_key_values=cache, use_cache=True).logits)
        return torch.cat(logits)

    def run() -> torch.Tensor:
        cache = had.BinaryKeyCache(model.config, recent=16)
        with torch.no_grad():
            model(input_ids=ids[:, :20], past_key_values=cache, use_cache=True)
            first = decode([20, 21, 22, 23, 24, 25], cache)
            cache.crop(-1)
            second = decode([25, 26, 27], cache)
            model(input_ids=ids[:, 20:23], past_key_values=cache, use_cache=True)
            return torch.cat([first, second, decode([26, 27, 28, 29], cache)])

    wanted, recorder = run(), Recorder()
    with stepping(model, recorder):
        torch.testing.assert_close(run(), wanted)
    assert recorder.replays >= 4


@pytest.mark.parametrize("wishes", [{"num_beams": 3}, {"output_hidden_states": True}])
def test_what_has_no_fixed_places_runs_as_ever(wishes: dict[str, Any]) -> None:
    model = student("llama_lm")
    found, recorder = with_steps(model, prompt(), **wishes)
    assert torch.equal(found.sequences, generate(model, prompt(), **wishes).sequences)
    assert recorder.captures == 0


def test_tuples_come_back_as_tuples() -> None:
    model, recorder = student("llama_lm"), Recorder()
    cache = had.BinaryKeyCache(model.config)
    ids, places = prompt()["input_ids"][:1], torch.arange(9)[None]
    with torch.no_grad(), stepping(model, recorder):
        for place in range(9):
            given = {"input_ids": ids[:, place : place + 1], "past_key_values": cache}
            given["position_ids"] = places[:, place : place + 1]
            assert isinstance(model(**given, use_cache=True, return_dict=False), tuple)
    assert recorder.captures == 0


def test_layers_with_a_window_run_as_ever() -> None:
    model = student("mistral")
    found, recorder = with_steps(model, prompt())
    assert_same(found, generate(model, prompt()))
    assert recorder.captures == 0


def test_a_model_that_cannot_be_captured_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(function: Callable[[], ModelOutput]) -> Callable[[], ModelOutput]:
        raise RuntimeError("operation not permitted when stream is capturing")

    model = student("llama_lm")
    with stepping(model, refuse):
        found = generate(model, prompt())
    assert_same(found, generate(model, prompt()))
    assert caplog.text.count("cannot decode by CUDA graphs") == 1


def test_a_model_that_asks_for_the_length_runs_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    model = student("llama_lm")
    forward = model.forward

    @functools.wraps(forward)
    def asking(**given: Any) -> Any:
        given["past_key_values"].get_seq_length()
        return forward(**given)

    model.forward = asking
    wanted = generate(model, prompt())
    found, recorder = with_steps(model, prompt())
    assert_same(found, wanted)
    assert recorder.captures == 0
    assert "known to its places alone" in caplog.text


def test_the_model_is_as_before_when_the_context_ends() -> None:
    model: PreTrainedModel = student("llama_lm")
    with had.decoding_graphs(model):  # on a CPU it does nothing
        assert "forward" not in vars(model)
    with pytest.raises(KeyError), stepping(model, Recorder()):
        raise KeyError
    assert "forward" not in vars(model)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("recipe", "n"), [("had_plus", 6), ("had_recent", 20)])
def test_graphs_on_a_gpu_give_the_same(recipe: str, n: int) -> None:
    model = student("llama_lm", n=n, recipe=recipe).cuda()
    inputs = {name: x.cuda() for name, x in prompt().items()}
    wanted = generate(model, inputs, max_new_tokens=90)
    with had.decoding_graphs(model):
        assert_same(generate(model, inputs, max_new_tokens=90), wanted)
