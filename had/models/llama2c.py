"""Checkpoints of llama2.c, in their first format ("v0"), as Llama models of transformers.

The format is that of github.com/karpathy/llama2.c: seven integers, then float32 tensors one after
the other; the tokenizer is a list of strings with scores, as SentencePiece has them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers
from torch import Tensor
from transformers import (
    AutoConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from had.errors import HadError
from had.models.transformers import ConvertedSource

_HEADER = struct.Struct("<7i")
_SPACE = "▁"  # what stands for a space in a token
_SPECIAL = ("<unk>", "<s>", "</s>")  # ids 0, 1, 2


@dataclass(frozen=True)
class Shape:
    """The header of a checkpoint, in its order; a negative vocabulary has a head of its own."""

    width: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    signed_vocabulary: int
    positions: int

    @property
    def vocabulary(self) -> int:
        return abs(self.signed_vocabulary)

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    def tensors(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and shape of all tensors, in the order of the file; layers come stacked."""
        keys = self.kv_heads * self.head_dim
        rotations = (self.positions, self.head_dim // 2)
        listed = [
            ("model.embed_tokens", (self.vocabulary, self.width)),
            ("input_layernorm", (self.layers, self.width)),
            ("self_attn.q_proj", (self.layers, self.width, self.width)),
            ("self_attn.k_proj", (self.layers, keys, self.width)),
            ("self_attn.v_proj", (self.layers, keys, self.width)),
            ("self_attn.o_proj", (self.layers, self.width, self.width)),
            ("post_attention_layernorm", (self.layers, self.width)),
            ("mlp.gate_proj", (self.layers, self.hidden, self.width)),
            ("mlp.down_proj", (self.layers, self.width, self.hidden)),
            ("mlp.up_proj", (self.layers, self.hidden, self.width)),
            ("model.norm", (self.width,)),
            ("cosines", rotations),
            ("sines", rotations),
        ]
        if self.signed_vocabulary < 0:
            listed.append(("lm_head", (self.vocabulary, self.width)))
        return listed

    @property
    def size(self) -> int:
        """Bytes of a whole file."""
        return _HEADER.size + 4 * sum(int(np.prod(shape)) for _, shape in self.tensors())


class Llama2cSource(ConvertedSource):
    """A directory with one checkpoint of llama2.c and its tokenizer.

    Args:
        weights: file of the checkpoint in the directory that `name` gives.
        vocabulary: file of the tokenizer there.
        **common: see `ModelSource`.
    """

    def __init__(self, *, weights: str, vocabulary: str, **common: Any) -> None:
        super().__init__(**common)
        self.weights = Path(self.name).expanduser() / weights
        self.vocabulary = Path(self.name).expanduser() / vocabulary

    def check(self) -> None:
        for file in (self.weights, self.vocabulary):
            if not file.is_file():
                raise HadError(f"{self}: there is no {file.name} in this directory")
        self._shape()

    def preprocessor(self) -> Any:
        return read_tokenizer(self.vocabulary, self._shape().vocabulary)

    def _load(self, auto: Any, config: PretrainedConfig, complete: bool) -> PreTrainedModel:
        model = self._fresh(auto, config)
        weights = dict(read_weights(self.weights, self._shape()))
        missing = model.load_state_dict(weights, strict=False).missing_keys
        absent = [name for name in missing if name.startswith("model.")]
        assert not absent, absent
        return model

    def _config(self) -> PretrainedConfig:
        shape = self._shape()
        return AutoConfig.for_model(
            "llama",
            **{
                "vocab_size": shape.vocabulary,
                "hidden_size": shape.width,
                "intermediate_size": shape.hidden,
                "num_hidden_layers": shape.layers,
                "num_attention_heads": shape.heads,
                "num_key_value_heads": shape.kv_heads,
                "max_position_embeddings": shape.positions,
                "rms_norm_eps": 1e-5,
                "tie_word_embeddings": shape.signed_vocabulary > 0,
                **self.arguments,
            },
        )

    def _shape(self) -> Shape:
        """The header; HadError if this is no such file."""
        content = self.weights.read_bytes()[: _HEADER.size]
        if len(content) == _HEADER.size:
            shape = Shape(*_HEADER.unpack(content))
            plausible = min(shape.width, shape.heads, shape.layers, shape.kv_heads) > 0
            if plausible and self.weights.stat().st_size == shape.size:
                return shape
        raise HadError(
            f"{self.weights}: not a whole checkpoint of llama2.c in format v0 (seven integers, "
            "then float32 tensors); copy or download it again"
        )


def read_weights(file: Path, shape: Shape) -> Iterator[tuple[str, Tensor]]:
    """The tensors under the names of transformers' Llama, float32."""
    flat = np.fromfile(file, dtype="<f4", offset=_HEADER.size)
    start = 0
    for name, size in shape.tensors():
        stop = start + int(np.prod(size))
        tensor = torch.from_numpy(flat[start:stop].reshape(size).copy())
        start = stop
        if name in ("cosines", "sines"):
            continue  # computed by the model
        if name.startswith(("model.", "lm_head")):
            yield f"{name}.weight", tensor
            continue
        for layer, weight in enumerate(tensor):
            yield f"model.layers.{layer}.{name}.weight", _rearranged(name, weight, shape)


def _rearranged(name: str, weight: Tensor, shape: Shape) -> Tensor:
    """Rotary pairs are neighbours there (2 i, 2 i + 1) and halves here (i, i + head_dim / 2)."""
    if not name.endswith(("q_proj", "k_proj")):
        return weight
    pairs = weight.view(-1, shape.head_dim // 2, 2, shape.width)
    return pairs.transpose(1, 2).reshape(weight.shape)


def read_tokenizer(file: Path, size: int) -> PreTrainedTokenizerFast:
    """The tokenizer of a checkpoint: merges in the order of scores, unknown characters as bytes.

    Raises:
        HadError: the file is cut short.
    """
    try:
        scored = list(_entries(file.read_bytes(), size))
    except (struct.error, UnicodeDecodeError) as error:
        raise HadError(f"{file}: no tokenizer of {size} tokens ({error})") from error
    tokens = [*_SPECIAL, *(token.replace(" ", _SPACE) for token, _ in scored[len(_SPECIAL) :])]
    ids = {token: index for index, token in enumerate(tokens)}
    scores = {token: score for token, (_, score) in zip(tokens, scored, strict=True)}
    backend = Tokenizer(
        models.BPE(ids, _merges(scores), unk_token=_SPECIAL[0], fuse_unk=True, byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)]
    )
    backend.decoder = decoders.Sequence(
        [
            *(decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=_SPECIAL[0],
        bos_token=_SPECIAL[1],
        eos_token=_SPECIAL[2],
        model_input_names=["input_ids", "attention_mask"],
    )


def _entries(content: bytes, size: int) -> Iterator[tuple[str, float]]:
    """Token and score, one after the other, behind the length of the longest token."""
    place = 4
    for _ in range(size):
        score, length = struct.unpack_from("<fi", content, place)
        place += 8 + length
        yield content[place - length : place].decode("utf-8"), score


def _merges(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """All pairs of tokens that make a third, the one with the highest score first."""
    found = []
    for order, (token, score) in enumerate(scores.items()):
        for border in range(1, len(token)):
            pair = token[:border], token[border:]
            if pair[0] in scores and pair[1] in scores:
                found.append((-score, order, pair))
    return [pair for *_, pair in sorted(found)]
