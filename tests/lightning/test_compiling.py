"""Compiled blocks compute what the blocks themselves do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from had.attention.module import hamming_layers
from had.distill.losses import attention_loss, block_error, hidden_loss
from had.distill.pair import TeacherStudent, enclosing_blocks
from had.lightning import fit as fitting
from had.lightning.compiling import compiled_blocks
from had.runner import run
from tests.distill.test_pair import EVERYTHING, pair
from tests.lightning.helpers import tiny
from tests.models.zoo import ZOO


def blocks(both: TeacherStudent) -> list[nn.Module]:
    assert both.teacher is not None
    names = enclosing_blocks([layer.geometry.name for layer, _ in both._layers])
    return [model.get_submodule(name) for model in (both.student, both.teacher) for name in names]


def loss_and_gradients(both: TeacherStudent, inputs: dict[str, Tensor]) -> list[Tensor]:
    signals = both(inputs, EVERYTHING)
    loss = attention_loss(signals) + hidden_loss(signals) + signals.logits.square().mean()
    trained = [p for p in both.student.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, trained, allow_unused=True)
    return [loss, *(g for g in gradients if g is not None)]


@pytest.mark.parametrize("name", ["bert", "llama", "timm_vit"])
def test_gradients_of_compiled_blocks_are_those_of_the_blocks(name: str) -> None:
    both, inputs = pair(name), ZOO[name].inputs()
    expected = loss_and_gradients(both, inputs)
    graphs = []

    def count(graph: torch.fx.GraphModule, _: Any) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    with compiled_blocks(both, backend=count):
        got = loss_and_gradients(both, inputs)
    compiled = {str(node.target) for graph in graphs for node in graph.graph.nodes}
    assert any("linear" in name for name in compiled), "no block was compiled"
    assert "autograd_function_apply" in compiled, "no relaxation was compiled"
    assert "clamp_min" in compiled, "no comparison of hidden states was compiled"
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_afterwards_the_blocks_are_as_before() -> None:
    both = pair("bert")
    with compiled_blocks(both, backend="eager"):
        assert all("forward" in vars(block) for block in blocks(both))
    assert not any("forward" in vars(block) for block in blocks(both))
    assert not any("units" in vars(layer) for layer in hamming_layers(both.student))
    assert both.block_error is block_error


def test_a_run_compiles_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered = []

    def eager(models: TeacherStudent) -> Any:
        entered.append(models)
        return compiled_blocks(models, backend="eager")

    monkeypatch.setattr(fitting, "compiled_blocks", eager)
    scores = run(tiny(tmp_path, "compile=true"))
    assert len(entered) == 1
    assert scores["score/student"] == run(tiny(tmp_path / "plain"))["score/student"]
