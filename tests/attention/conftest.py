"""What tests of kernels need around them."""

from __future__ import annotations

import pytest
import torch
from emulated import build as build


@pytest.fixture
def kernels_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interpret the kernels where there is no CUDA device, whoever imported Triton before."""
    pytest.importorskip("triton")
    if not torch.cuda.is_available():
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        _interpret_language(monkeypatch)


def _interpret_language(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton chooses at import how its own library of device functions runs; choose again."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    compiled = {k: v for k, v in vars(tl.standard).items() if isinstance(v, JITFunction)}
    interpreted = {id(v): InterpretedFunction(v.fn) for v in compiled.values()}
    for place in (tl, tl.standard, tl.core, tl.tensor):
        for name, function in list(vars(place).items()):
            if id(function) in interpreted:
                monkeypatch.setattr(place, name, interpreted[id(function)])
