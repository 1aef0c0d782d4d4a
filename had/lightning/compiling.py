"""Blocks of teacher and student compiled while they train: chains of small kernels become one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    """Compile every block around an attention layer; afterwards they are as they were.

    The attention itself is left alone: its backends bring kernels of their own. Lengths and batch
    sizes stay free, so that a block is compiled once and not for each of them.

    Args:
        models: their blocks' `forward` is replaced for the duration of the context.
        backend: of `torch.compile`.
    """
    replaced = []
    for model in (models.student, models.teacher):
        assert model is not None
        cores = [*hamming_layers(model), *recorded_layers(model)]
        for core in cores:
            core.forward = torch.compiler.disable(core.forward)  # type: ignore[method-assign]
        blocks = _blocks(model, [core.geometry.name for core in cores])
        for block in blocks:
            block.forward = torch.compile(block.forward, dynamic=True, backend=backend)
        replaced += [*cores, *blocks]
    try:
        yield
    finally:
        for module in replaced:
            del module.forward


def _blocks(model: nn.Module, layers: list[str]) -> list[nn.Module]:
    return [model.get_submodule(name) for name in enclosing_blocks(layers)]
