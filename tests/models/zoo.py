"""Tiny, randomly initialised models of every family that the adapters promise to convert."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
import transformers as tf
from torch import Tensor, nn

_SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
_IMAGE = {**_SIZE, "image_size": 16, "patch_size": 4}


@dataclass(frozen=True)
class Specimen:
    """A model builder, its inputs, and how many attention layers it has."""

    build: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, Tensor]]
    layers: int


_DECODER = {**_SIZE, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 100, "pad_token_id": 0}


def text() -> dict[str, Tensor]:
    """Three sequences of 12 tokens, two of them padded."""
    torch.manual_seed(1)
    mask = torch.ones(3, 12, dtype=torch.long)
    mask[1, 7:] = 0
    mask[2, 2:] = 0
    return {"input_ids": torch.randint(5, 90, (3, 12)), "attention_mask": mask}


def text_to_text() -> dict[str, Tensor]:
    return {**text(), "decoder_input_ids": torch.randint(5, 90, (3, 6))}


def image() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {"pixel_values": torch.randn(2, 3, 16, 16)}


def _hf(kind: str, config: Any, inputs: Callable[[], dict[str, Tensor]], layers: int) -> Specimen:
    # A model keeps and changes its configuration, so each gets its own.
    return Specimen(lambda: getattr(tf, kind)(copy.deepcopy(config)), inputs, layers)


def _timm(name: str) -> Specimen:
    size = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 4}
    return Specimen(lambda: timm.create_model(name, num_classes=3, **size), image, 2)


ZOO: dict[str, Specimen] = {
    "bert": _hf("BertForSequenceClassification", tf.BertConfig(**_SIZE, vocab_size=100), text, 2),
    "roberta": _hf(
        "RobertaForSequenceClassification", tf.RobertaConfig(**_SIZE, vocab_size=100), text, 2
    ),
    "distilbert": _hf(
        "DistilBertForSequenceClassification",
        tf.DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=48, vocab_size=100),
        text,
        2,
    ),
    "modernbert": _hf(
        "ModernBertForSequenceClassification",
        tf.ModernBertConfig(**_SIZE, vocab_size=100, pad_token_id=0, local_attention=4),
        text,
        2,
    ),
    "llama": _hf(
        "LlamaForSequenceClassification",
        tf.LlamaConfig(**_SIZE, num_key_value_heads=2, vocab_size=100, pad_token_id=0),
        text,
        2,
    ),
    "gpt2": _hf(
        "GPT2Model", tf.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=100), text, 2
    ),
    "gpt2_lm": _hf(
        "GPT2LMHeadModel", tf.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=100), text, 2
    ),
    "llama_lm": _hf("LlamaForCausalLM", tf.LlamaConfig(**_DECODER), text, 2),
    "qwen2": _hf("Qwen2ForCausalLM", tf.Qwen2Config(**_DECODER), text, 2),
    "qwen3": _hf("Qwen3ForCausalLM", tf.Qwen3Config(**_DECODER), text, 2),
    "mistral": _hf("MistralForCausalLM", tf.MistralConfig(**_DECODER, sliding_window=5), text, 2),
    "gemma3": _hf(
        "Gemma3ForCausalLM",
        tf.Gemma3TextConfig(
            **_DECODER, sliding_window=5, layer_types=["sliding_attention", "full_attention"]
        ),
        text,
        2,
    ),
    "t5": _hf(
        "T5ForConditionalGeneration",
        tf.T5Config(d_model=32, d_kv=8, num_layers=2, num_heads=4, d_ff=48, vocab_size=100),
        text_to_text,
        6,
    ),
    "vit": _hf("ViTForImageClassification", tf.ViTConfig(**_IMAGE), image, 2),
    "deit": _hf("DeiTForImageClassification", tf.DeiTConfig(**_IMAGE), image, 2),
    "timm_vit": _timm("vit_tiny_patch16_224"),
    "timm_deit_distilled": _timm("deit_tiny_distilled_patch16_224"),
}


def build(name: str) -> nn.Module:
    """The specimen's model with fixed weights, in evaluation mode."""
    torch.manual_seed(0)
    return ZOO[name].build().eval()


def output(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """The model's main output; of tokenwise outputs only the real tokens."""
    result = model(**inputs) if "input_ids" in inputs or _is_hf(model) else model(*inputs.values())
    tensor = result if isinstance(result, Tensor) else result[0]
    mask = inputs.get("attention_mask")
    tokenwise = mask is not None and tensor.dim() == 3 and tensor.shape[1] == mask.shape[1]
    return tensor[mask.bool()] if tokenwise else tensor


def _is_hf(model: nn.Module) -> bool:
    return isinstance(model, tf.PreTrainedModel)
