"""What teacher and student do beside attention, compiled: chains of small kernels become one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from had.attention.module import hamming_layers
from had.attention.recorded import recorded_layers
from had.distill.pair import TeacherStudent, enclosing_blocks


@contextmanager
def compiled_blocks(
    models: TeacherStudent, backend: str | Callable[..., Any] = "inductor"
) -> Iterator[None]:
    """Compile what surrounds attention; afterwards all is as it was.

    That is every block around an attention layer, the relaxation of queries and keys, and the
    comparison of hidden states. Attention itself is left alone: its backends bring kernels of their
    own. Lengths and batch sizes stay free, so that a block is compiled once and not for each.

    Args:
        models: their methods are replaced for the duration of the context.
        backend: of `torch.compile`.
    """
    compiled = partial(torch.compile, dynamic=True, backend=backend)
    with ExitStack() as stack:
        stack.enter_context(_replaced(models, "block_error", compiled))
        for layer in hamming_layers(models.student):
            stack.enter_context(_replaced(layer, "units", compiled))
        for model in (models.student, models.teacher):
            assert model is not None
            cores = [*hamming_layers(model), *recorded_layers(model)]
            for core in cores:
                stack.enter_context(_replaced(core, "forward", torch.compiler.disable))
            for block in _blocks(model, [core.geometry.name for core in cores]):
                stack.enter_context(_replaced(block, "forward", compiled))
        yield


@contextmanager
def _replaced(owner: object, name: str, change: Callable[[Any], Any]) -> Iterator[None]:
    """The attribute changed on the object itself, where it hides the one of its class."""
    setattr(owner, name, change(getattr(owner, name)))
    try:
        yield
    finally:
        delattr(owner, name)


def _blocks(model: nn.Module, layers: list[str]) -> list[nn.Module]:
    return [model.get_submodule(name) for name in enclosing_blocks(layers)]
