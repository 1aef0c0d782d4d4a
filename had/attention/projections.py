"""Where a student's weights make queries and keys."""

from __future__ import annotations

from torch import Tensor, nn

from had.attention.module import HammingAttention
from had.errors import HadError

_PAIRS = (("query", "key"), ("q_proj", "k_proj"), ("q_lin", "k_lin"), ("q", "k"))
_FUSED = ("qkv", "qkv_proj", "Wqkv", "c_attn")  # all queries first, then keys, then values
QUERY_PROJECTIONS = frozenset([query for query, _ in _PAIRS] + list(_FUSED))
"""What attention layers call the projection that makes their queries, alone or among others."""


def query_key_weights(student: nn.Module) -> list[Tensor]:
    """The trained parameters that make a student's queries and keys: projections and scales.

    Returns:
        Views of its parameters, whole or without the outputs that are values; writing to one writes
        to the parameter.

    Raises:
        HadError: the projections of a layer are not known by their names.
    """
    found = []
    for name, layer in student.named_modules():
        cores = [child for child in layer.children() if isinstance(child, HammingAttention)]
        if cores:
            found += _of_layer(name, layer, cores[0])
            found += [
                p.detach() for scale in (cores[0].query, cores[0].key) for p in _trained(scale)
            ]
    return found


def _of_layer(name: str, layer: nn.Module, core: HammingAttention) -> list[Tensor]:
    children = dict(layer.named_children())
    for pair in _PAIRS:
        if all(each in children for each in pair):
            return [p.detach() for each in pair for p in _trained(children[each])]
    for fused in _FUSED:
        if fused in children:
            g = core.geometry
            outputs = (g.heads + g.kv_heads) * g.head_dim
            return [_first(p, outputs, children[fused]) for p in _trained(children[fused])]
    raise HadError(
        f"layer {name!r} ({type(layer).__name__}): its projections of queries and keys have names "
        "that are not known, so they cannot learn at a rate of their own; set "
        "schedule.query_key_learning_rate=null"
    )


def _trained(projection: nn.Module) -> list[Tensor]:
    return [p for p in projection.parameters() if p.requires_grad]


def _first(parameter: Tensor, outputs: int, projection: nn.Module) -> Tensor:
    """What makes the first outputs; GPT-2's projections are transposed, (inputs, outputs)."""
    transposed = parameter.dim() == 2 and not isinstance(projection, nn.Linear)
    return parameter.detach().narrow(1 if transposed else 0, 0, outputs)
