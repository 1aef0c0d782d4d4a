"""llama2.c checkpoints against llama2.c's own expected output, and written ones read back."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from had.errors import HadError
from had.models.llama2c import Llama2cSource, Shape, read_tokenizer

TOLD = (  # by llama2.c's test for 200 steps at temperature 0 (github.com/karpathy/llama2.c)
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball. She wanted to play with it, but it was too high.\n"
    "Lily's mom said, \"Lily, let's go to the park.\" Lily was sad and didn't know what to do. "
    'She said, "I want to play with your ball, but I can\'t find it."\n'
    "Lily was sad and didn't know what to do. She said, \"I'm sorry, Lily. I didn't know what to "
    "do.\"\nLily didn't want to help her mom, so she"
)
TOKENS = ["<unk>", "\n<s>\n", "\n</s>\n", " ", "a", "b", "ab", " ab"]
SHAPE = Shape(width=8, hidden=12, layers=2, heads=2, kv_heads=1, signed_vocabulary=8, positions=16)


def _source(directory: Path) -> Llama2cSource:
    return Llama2cSource(
        label="stories",
        name=str(directory),
        weights="stories260K.bin",
        vocabulary="tok512.bin",
        modality="text",
    )


def _write_tokenizer(file: Path) -> None:
    entries = [
        struct.pack("<fi", -float(index), len(token.encode())) + token.encode()
        for index, token in enumerate(TOKENS)
    ]
    file.write_bytes(struct.pack("<i", 8) + b"".join(entries))


def _tiny() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        **{"vocab_size": 8, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2},
        **{"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 16},
        **{"rms_norm_eps": 1e-5, "tie_word_embeddings": True},
    )
    model = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def _interleaved(weight: torch.Tensor) -> torch.Tensor:
    """From halves (i, i + 2) of a head of four rows to neighbours (2 i, 2 i + 1)."""
    return weight.view(-1, 4, 8)[:, [0, 2, 1, 3]].reshape(weight.shape)


def _write(model: LlamaForCausalLM, file: Path) -> None:
    """The model as llama2.c's exporter would write it."""
    layers = model.model.layers
    attention = [layer.self_attn for layer in layers]
    tensors = [
        model.model.embed_tokens.weight,
        *(layer.input_layernorm.weight for layer in layers),
        *(_interleaved(each.q_proj.weight) for each in attention),
        *(_interleaved(each.k_proj.weight) for each in attention),
        *(each.v_proj.weight for each in attention),
        *(each.o_proj.weight for each in attention),
        *(layer.post_attention_layernorm.weight for layer in layers),
        *(layer.mlp.gate_proj.weight for layer in layers),
        *(layer.mlp.down_proj.weight for layer in layers),
        *(layer.mlp.up_proj.weight for layer in layers),
        model.model.norm.weight,
        torch.zeros(2, 16, 2),  # rotations, which are computed
    ]
    header = struct.pack("<7i", 8, 12, 2, 2, 1, 8, 16)
    file.write_bytes(header + b"".join(t.detach().numpy().tobytes() for t in tensors))


@torch.no_grad()
def test_a_written_model_is_read_back(tmp_path: Path) -> None:
    model = _tiny()
    _write(model, tmp_path / "stories260K.bin")
    _write_tokenizer(tmp_path / "tok512.bin")
    source = _source(tmp_path)
    source.check()
    again = source.build(8, [], head="causal_lm").eval()
    tokens = torch.tensor([[1, 4, 5, 6, 7, 3]])
    torch.testing.assert_close(again(tokens).logits, model(tokens).logits)
    assert source.positions() == 16


def test_pairs_are_merged_by_their_scores(tmp_path: Path) -> None:
    _write_tokenizer(tmp_path / "tok512.bin")
    tokenizer = read_tokenizer(tmp_path / "tok512.bin", len(TOKENS))
    assert tokenizer("ab ab")["input_ids"] == [7, 7]
    assert tokenizer("ba")["input_ids"] == [3, 5, 4]
    assert tokenizer.decode([7, 7]) == "ab ab"
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    _write(_tiny(), tmp_path / "stories260K.bin")
    _write_tokenizer(tmp_path / "tok512.bin")
    whole = (tmp_path / "stories260K.bin").read_bytes()
    assert len(whole) == SHAPE.size
    for size in (10, 100, len(whole) - 4):
        (tmp_path / "stories260K.bin").write_bytes(whole[:size])
        with pytest.raises(HadError, match=r"stories260K\.bin: not a whole checkpoint"):
            _source(tmp_path).check()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(HadError, match=r"no stories260K\.bin"):
        _source(tmp_path).check()


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    _write(_tiny(), tmp_path / "stories260K.bin")
    _write_tokenizer(tmp_path / "tok512.bin")
    with pytest.raises(HadError, match="made for 8 tokens, the task's tokenizer has 257"):
        _source(tmp_path).build(257, [], head="causal_lm")


@torch.no_grad()
def test_the_real_checkpoint_tells_the_published_story(shared_data: Path) -> None:
    directory = shared_data / "stories260K"
    if not directory.is_dir():
        pytest.skip(f"no stories260K in {shared_data}")
    source = _source(directory)
    source.check()
    tokenizer = source.preprocessor()
    model = source.build(len(tokenizer), [], head="causal_lm").eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == 260_032
    start = torch.tensor([[tokenizer.bos_token_id]])
    told = model.generate(start, max_new_tokens=200, do_sample=False, pad_token_id=0)[0]
    assert tokenizer.decode(told, skip_special_tokens=True) == TOLD
    assert tokenizer(TOLD)["input_ids"] == told[1:].tolist()
