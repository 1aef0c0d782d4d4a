"""Adapter to transformers: one attention function and one mask function under the same name.

Any model whose attention layers ask `ALL_ATTENTION_FUNCTIONS` can be converted; the function hands
each call to the module that was attached to the calling layer. The mask function must be registered
too: without it transformers passes no mask at all, and padding would silently be attended to.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import causal_mask_function, sdpa_mask

from had.attention.cache import binary_version
from had.attention.module import hamming_layers, recent_keys_of
from had.attention.options import AttentionGeometry
from had.attention.position_bias import wants_position_bias
from had.attention.projections import QUERY_PROJECTIONS
from had.errors import HadError

log = logging.getLogger(__name__)

IMPLEMENTATION = "hamming"
CORE = "core"  # the attached module's attribute name, and so part of the student's state-dict keys


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention signature: (B, heads, T, D) in, (B, T, heads, D) out, no weights."""
    output = getattr(module, CORE)(
        query,
        key,
        value,
        mask=attention_mask,
        bias=position_bias,
        scale=scaling,
        dropout=dropout,
    )
    return output.transpose(1, 2).contiguous(), None


def boolean_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """The boolean mask, True = allowed; causality is always in it, never left to a flag.

    It takes T * S bytes a forward pass, shared by all layers: 256 MiB for 16k tokens, and as much
    again for every further sequence if the model is given an `attention_mask`, even of ones. The
    last token alone sees all others, so that what is padding is all that its mask has to say.
    """
    if not args and _is_of_last_token(**kwargs):
        padding = kwargs["attention_mask"]
        return None if padding is None else padding[:, None, None]
    # Neither may transformers look whether anything is padded at all: that waits for the device.
    skips = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return sdpa_mask(*args, **{**kwargs, **skips})


def _is_of_last_token(
    q_length: Any = None,
    kv_length: Any = None,
    q_offset: Any = None,
    kv_offset: Any = None,
    mask_function: Any = None,
    attention_mask: Any = False,
    **_: Any,
) -> bool:
    """Whether the mask of these arguments of transformers' is one row, of the last of all keys.

    Offsets may be tensors, whose contents nobody may wait for; any mask function but the causal
    one hides more.
    """
    known = (type(q_offset), kv_offset, mask_function) == (int, 0, causal_mask_function)
    if not known or q_length != 1 or q_offset + 1 != kv_length:
        return False
    return attention_mask is None or (
        isinstance(attention_mask, Tensor)
        and attention_mask.dtype == torch.bool
        and attention_mask.dim() == 2
        and attention_mask.shape[1] == kv_length
    )


@cache
def register() -> None:
    """Make `attn_implementation="hamming"` known to transformers, attention and mask together."""
    AttentionInterface.register(IMPLEMENTATION, attend)
    AttentionMaskInterface.register(IMPLEMENTATION, boolean_mask)


def attach(model: PreTrainedModel, build: Callable[[AttentionGeometry], nn.Module]) -> None:
    """Hang `build(geometry)` on every attention layer and route the model through it, in place.

    Raises:
        HadError: a layer cannot be converted; it is named, and nothing has been changed.
    """
    register()
    geometries = find_layers(model)
    cores = [build(geometry) for geometry in geometries]
    if any(map(wants_position_bias, cores)):
        raise HadError(
            f"{type(model).__name__}: position_bias is for timm's vision transformers; set it to "
            "false"
        )
    for geometry, core in zip(geometries, cores, strict=True):
        layer = model.get_submodule(geometry.name)
        setattr(layer, CORE, core.to(next(layer.parameters()).device).train(layer.training))
    _route(model, [geometry.name for geometry in geometries])
    if hamming_layers(model) and model.can_generate():
        vars(model)["_prepare_cache_for_generation"] = BinaryCacheByDefault(model)


def _route(model: PreTrainedModel, layers: list[str]) -> None:
    """Make every layer look up our function; encoders and decoders have configurations of theirs.

    Raises:
        HadError: a layer would go on with its dense attention, silently.
    """
    for part in model.modules():
        if isinstance(part, PreTrainedModel):
            part.set_attn_implementation(IMPLEMENTATION)
    for name in layers:
        config = getattr(model.get_submodule(name), "config", model.config)
        if config._attn_implementation != IMPLEMENTATION:
            kind = type(model).__name__
            raise HadError(f"layer {name!r}: {kind} refuses attn_implementation={IMPLEMENTATION!r}")


class BinaryCacheByDefault:
    """Lets a student's `generate` use a binary key cache where it would use a dynamic one.

    It stands in the model's place for the one method in which `generate` makes its cache; a class
    rather than a closure, so that the model can still be pickled and copied.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def __call__(
        self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        """The arguments are transformers'; the cache is put into `model_kwargs`."""
        given = model_kwargs.get("past_key_values")
        kind: Any = type(self.model)
        kind._prepare_cache_for_generation(
            self.model, generation_config, model_kwargs, *args, **kwargs
        )
        made = model_kwargs.get("past_key_values")
        if given is not None or made is None or generation_config.cache_implementation is not None:
            return
        reasons = filter(None, (core.why_not_bits() for core in hamming_layers(self.model)))
        if (reason := next(reasons, None)) is not None:
            log.warning("generating with a float cache: %s", reason)
            return
        model_kwargs["past_key_values"] = binary_version(
            made, self.model.config, recent_keys_of(self.model)
        )
        if generation_config.is_assistant:
            model_kwargs["past_key_values"].activate_past_recording()


def find_layers(model: PreTrainedModel) -> list[AttentionGeometry]:
    """All attention layers of the model, in order.

    Raises:
        HadError: an attention layer does not go through transformers' attention interface, uses
            something the student cannot express, or there is none at all.
    """
    found = []
    for name, module in model.named_modules():
        if _asks_interface(type(module)):
            found.append(_geometry(name, module, model))
        elif _is_other_attention(module):
            raise HadError(
                f"layer {name!r} ({type(module).__name__}) does not go through transformers' "
                "attention interface and cannot be converted"
            )
    if not found:
        raise HadError(f"{type(model).__name__} has no attention layer that can be converted")
    return found


def _asks_interface(kind: type[nn.Module]) -> bool:
    """Whether the class's own forward looks the attention function up by name."""
    try:
        source = inspect.getsource(kind.forward)
    except (OSError, TypeError):
        return False
    return "ALL_ATTENTION_FUNCTIONS" in source


def _is_other_attention(module: nn.Module) -> bool:
    """An attention layer of another make: it projects queries itself, yet asks no interface."""
    if isinstance(module, nn.MultiheadAttention):
        return True
    own = {name for name, child in module.named_children() if isinstance(child, nn.Linear)}
    return "Attention" in type(module).__name__ and bool(own & {*QUERY_PROJECTIONS, "in_proj"})


def _geometry(name: str, module: nn.Module, model: PreTrainedModel) -> AttentionGeometry:
    config = getattr(module, "config", model.config)
    for feature in ("sinks", "softcap", "attn_logit_softcapping"):
        if getattr(module, feature, None) is not None:
            raise HadError(
                f"layer {name!r} ({type(module).__name__}) uses {feature}: not supported"
            )
    heads = _first(
        module, ("num_attention_heads", "num_heads", "n_heads"), config.num_attention_heads
    )
    groups = getattr(module, "num_key_value_groups", 1)
    head_dim = _first(
        module,
        ("head_dim", "attention_head_size", "key_value_proj_dim"),
        config.hidden_size // heads,
    )
    return AttentionGeometry(name, heads, heads // groups, head_dim)


def _first(module: nn.Module, names: tuple[str, ...], default: int) -> int:
    values: Iterator[int] = (getattr(module, name) for name in names if hasattr(module, name))
    return next(values, default)
