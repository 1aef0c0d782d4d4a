"""`had generate`: a student's text, streamed; its speed and memory; and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import had
from had.commands.generate import TextStream
from tests.integration.command_line import Ended, called
from tests.models.zoo import ZOO, build

PROMPT = "Grüß Gott, und"


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each byte, so that characters can have several."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with a student of 64 positions and heads of 64."""
    directory = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=1,
        num_key_value_heads=1,
        intermediate_size=64,
        vocab_size=256,
        max_position_embeddings=64,
        eos_token_id=None,
    )
    batch = {"input_ids": torch.randint(0, 256, (2, 30))}
    student = had.binarize(LlamaForCausalLM(config), 4, calibration=[batch])
    had.save(student, directory / "student", byte_tokenizer())
    return directory


@pytest.fixture
def generate(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, run: Path):
    """Runs `had generate` on the run, or on another place."""

    def call(*arguments: str, place: Path = run) -> Ended:
        caplog.clear()
        with caplog.at_level("INFO", logger="had"):
            return called(lambda: tuple(capsys.readouterr()), "generate", str(place), *arguments)

    return call


def test_the_text_is_the_likeliest_one(generate, run: Path) -> None:
    wanted = had.load_student(run / "student").generate(
        **byte_tokenizer()(PROMPT, return_tensors="pt"), max_new_tokens=20, do_sample=False
    )
    ended = generate("--prompt", PROMPT, "--temperature", "0", "--max-new-tokens", "20")
    assert ended.status == 0
    assert ended.out == byte_tokenizer().decode(wanted[0]) + "\n"
    assert wanted.shape[1] == len(PROMPT.encode()) + 20


def test_the_seed_decides(generate, run: Path) -> None:
    def text(seed: str) -> str:
        return generate("--prompt", PROMPT, "--seed", seed, "--max-new-tokens", "20").out

    assert text("1") == text("1") != text("2")
    narrow = generate("--prompt", PROMPT, "--top-p", "0.000001", "--max-new-tokens", "20").out
    assert (
        narrow == generate("--prompt", PROMPT, "--temperature", "0", "--max-new-tokens", "20").out
    )


def test_speed_and_memory_are_told(generate, run: Path, caplog: pytest.LogCaptureFixture) -> None:
    """20 new tokens, of which the last is never attended to, after 16 of the prompt."""
    options = ("--prompt", PROMPT, "--max-new-tokens", "20")
    assert generate(*options, place=run / "student").status == 0
    assert "20 tokens, the first after" in caplog.text
    assert "tokens/s" in caplog.text
    assert "cache: 35 tokens: " in caplog.text
    assert "cache: 131072 tokens: " in caplog.text
    ratios = {"bfloat16": "(ratio 0.53)", "float8": "(ratio 0.28)"}  # (8 + 128 or 64) / 256
    for values, ratio in ratios.items():
        generate(*options, "--values", values)
        assert caplog.text.count(ratio) == 2


def test_no_more_than_the_positions(generate, caplog: pytest.LogCaptureFixture) -> None:
    assert generate("--prompt", "x" * 50, "--max-new-tokens", "20").status == 0
    assert "64 positions: 14 new tokens at most" in caplog.text
    ended = generate("--prompt", "x" * 64)
    assert ended.status == 2
    assert ended.err[-1].startswith("--prompt has 64 tokens, and the model's 64 positions")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--prompt", ""), "--prompt is empty"),
        (("--prompt", "x", "--temperature", "-1"), "'-1': must be a number, 0 or more"),
        (("--prompt", "x", "--top-p", "2"), "'2': must be a number, from 0 to 1"),
        (("--prompt", "x", "--max-new-tokens", "none"), "'none': must be a number, 1 or more"),
        (("--prompt", "x", "--device", "gpu"), "--device gpu: cannot be used"),
        ((), "required: --prompt"),
    ],
)
def test_bad_input(generate, arguments: tuple[str, ...], message: str) -> None:
    ended = generate(*arguments)
    assert ended.status == 2
    assert message in ended.err[-1]


def test_places_without_a_student_that_writes(generate, tmp_path: Path) -> None:
    assert "no config.json" in generate("--prompt", "x", place=tmp_path).err[-1]
    had.save(had.binarize(build("bert"), calibration=[ZOO["bert"].inputs()]), tmp_path)
    ended = generate("--prompt", "x", place=tmp_path)
    assert ended.status == 2
    assert "BertForSequenceClassification cannot generate text" in ended.err[-1]


def test_characters_are_written_whole(capsys: pytest.CaptureFixture[str]) -> None:
    stream, tokenizer = TextStream(byte_tokenizer()), byte_tokenizer()
    text = "aß€😀 z"
    written = []
    stream.put(torch.tensor([tokenizer("Ä").input_ids]))
    for token in tokenizer(text).input_ids:
        stream.put(torch.tensor([token]))
        written.append(capsys.readouterr().out)
    stream.end()
    assert "".join(written) == "Ä" + text
    assert [part for part in written if part] == ["Äa", *text[1:]]


def test_bytes_that_are_no_text_do_not_hold_back_the_rest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream, tokenizer = TextStream(byte_tokenizer()), byte_tokenizer()
    stray = tokenizer("é").input_ids[0]  # the first of two bytes
    stream.put(torch.tensor([[65]]))
    capsys.readouterr()
    for token in [stray] * 8:
        stream.put(torch.tensor([token]))
    assert len(capsys.readouterr().out) >= 4
