"""Model geometry from plain mappings: what a YAML states, or what a model's config.json says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from math import ceil
from pathlib import Path
from typing import Any, TypeGuard

from had.errors import HadError
from had.hardware.model import ModelGeometry

REQUIRED = ("layers", "heads", "head_dim")
KEYS = tuple(item.name for item in fields(ModelGeometry) if item.name != "name")

# What model families call the same number, in transformers and in timm.
ALIASES: dict[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "depth"),
    "decoder_layers": ("num_decoder_layers", "decoder_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"),
    "width": ("hidden_size", "n_embd", "d_model", "dim", "embed_dim", "num_features"),
    "head_dim": ("head_dim", "d_kv"),
    "kv_heads": ("num_key_value_heads",),
    "image": ("image_size", "img_size"),
    "patch": ("patch_size",),
}
SIZES = ("image", "patch")  # one number, or two

# Depth and heads that timm's config.json leaves to the name of the architecture.
TIMM_SIZES: dict[str, dict[str, int]] = {
    "tiny": {"depth": 12, "num_heads": 3},
    "small": {"depth": 12, "num_heads": 6},
    "base": {"depth": 12, "num_heads": 12},
    "large": {"depth": 24, "num_heads": 16},
}
TIMM_NAME = re.compile(r"(?:vit|deit3?)_(tiny|small|base|large)(?:_distilled)?_patch(\d+)_")


def read_geometry(stated: Mapping[str, Any]) -> ModelGeometry:
    """Return the geometry that a mapping of `KEYS` states.

    Raises:
        HadError: The message names every key that is unknown, missing or not a positive integer.
    """
    problems = list(_problems(stated))
    if problems:
        raise HadError("; ".join(problems))
    return ModelGeometry(**stated)


def _problems(stated: Mapping[str, Any]) -> Iterator[str]:
    for key, value in stated.items():
        if key not in KEYS:
            yield f"no such key {key}, known: {', '.join(KEYS)}"
        elif not _whole(value) and not (value is None and key not in REQUIRED):
            yield f"{key}={value!r} must be an integer of 1 or more"
    missing = [key for key in REQUIRED if key not in stated]
    if missing:
        yield f"{', '.join(missing)} missing"
    heads, kv_heads = stated.get("heads"), stated.get("kv_heads")
    if _whole(heads) and _whole(kv_heads) and heads % kv_heads:
        yield f"heads={heads} is no multiple of kv_heads={kv_heads}"
    layers, local = stated.get("layers"), stated.get("local_layers")
    if _whole(layers) and _whole(local) and local > layers:
        yield f"local_layers={local} are more than layers={layers}"
    if bool(local) != bool(stated.get("window")):
        yield "local_layers and window need each other"


def amend(geometry: ModelGeometry, arguments: Mapping[str, Any]) -> ModelGeometry:
    """Return the geometry of a model after fields of its architecture were changed.

    Args:
        geometry: Of the unchanged model.
        arguments: Fields by the names of either library; others are passed over.

    Raises:
        HadError: A field is not a positive integer.
    """
    changes = _facts(arguments)
    changes.setdefault("heads", geometry.heads)
    # The width of the model stays when its heads change, so theirs follows.
    changes.setdefault("width", geometry.heads * geometry.head_dim)
    known = {key: value for key, value in asdict(geometry).items() if key in KEYS}
    return read_geometry(known | _as_stated(changes, arguments))


def read_config(file: Path, arguments: Mapping[str, Any]) -> ModelGeometry:
    """Return the geometry of a model directory's config.json.

    Args:
        file: In the form of transformers, or in that of timm.
        arguments: Fields that replace those of the file.

    Raises:
        HadError: The file is no JSON object, or does not determine the geometry.
    """
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HadError(f"{file}: cannot be read ({error})") from error
    if not isinstance(config, dict):
        raise HadError(f"{file}: must be a JSON object")
    config = _timm_fields(config) | config | config.get("model_args", {}) | dict(arguments)
    try:
        facts = _with_decoder(_facts(config), bool(config.get("is_encoder_decoder")))
        return read_geometry(_as_stated(facts, config) | _local(config))
    except HadError as error:
        raise HadError(f"{file}: {error}") from error


def _timm_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a timm config.json says by its architecture and its input size."""
    match = TIMM_NAME.match(str(config.get("architecture")))
    if match is None:
        return {}
    size = config.get("pretrained_cfg", {}).get("input_size")
    return {
        **TIMM_SIZES[match[1]],
        "patch_size": int(match[2]),
        "img_size": size[1:] if size else None,  # as timm calls it: arguments may replace it
    }


def _facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a configuration by our names; those that are absent or null are left out."""
    facts: dict[str, Any] = {}
    for fact, names in ALIASES.items():
        name = next((name for name in names if config.get(name) is not None), None)
        if name is None:
            continue
        if fact not in SIZES and not _whole(config[name]):
            raise HadError(f"{name}={config[name]!r} must be an integer of 1 or more")
        facts[fact] = config[name]
    return facts


def _with_decoder(facts: dict[str, Any], exists: bool) -> dict[str, Any]:
    """Facts with as many decoder layers as there are, by default as many as of the encoder."""
    stated = facts.pop("decoder_layers", facts.get("layers"))
    return facts | {"decoder_layers": stated} if exists and stated else facts


def _as_stated(facts: dict[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Facts as the mapping that `read_geometry` takes."""
    stated = {key: facts[key] for key in KEYS if key in facts}
    if "width" in facts and "heads" in facts:
        stated.setdefault("head_dim", facts["width"] // facts["heads"])
    if "image" in facts and "patch" in facts:
        (height, length), (rows, columns) = _pair(facts["image"]), _pair(facts["patch"])
        stated["tokens"] = (height // rows) * (length // columns) + _further_tokens(config)
    return stated


def _further_tokens(config: Mapping[str, Any]) -> int:
    """Tokens beside the patches: class, distillation and register tokens."""
    distilled = config.get("model_type") == "deit" or "distilled" in str(config.get("architecture"))
    registers = config.get("num_register_tokens") or config.get("reg_tokens") or 0
    return int(config.get("class_token", True)) + int(distilled) + int(registers)


def _local(config: Mapping[str, Any]) -> dict[str, int]:
    """How many layers see a window of their neighbours only, and how wide it is."""
    layers = config.get("num_hidden_layers", 0)
    every = config.get("global_attn_every_n_layers") or 1
    kinds = config.get("layer_types")
    count = kinds.count("sliding_attention") if kinds else layers - ceil(layers / every)
    if not count:
        return {}
    if "local_attention" not in config:
        raise HadError(f"{count} layers have a sliding window that looks back only")
    return {"local_layers": count, "window": 2 * (config["local_attention"] // 2) + 1}


def _pair(size: Any) -> tuple[int, int]:
    pair = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if len(pair) != 2 or not all(_whole(side) for side in pair):
        raise HadError(f"{size!r} is no size of an image or a patch")
    return pair


def _whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
