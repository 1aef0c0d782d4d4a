"""What is done once instead of in every step leaves the numbers as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from had.lightning.parameters import narrow_linear_layers
from had.runner import run
from tests.lightning.helpers import tiny
from tests.models.zoo import ZOO, build, output


@pytest.mark.parametrize("name", ZOO)
def test_narrow_linear_layers_change_nothing_under_autocast(name: str) -> None:
    model, inputs = build(name), ZOO[name].inputs()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        before = output(model, inputs)
        narrow_linear_layers(model)
        after = output(model, inputs)
    assert torch.equal(before, after)
    embeddings = [m.weight for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            tied = any(module.weight is weight for weight in embeddings)
            assert (module.weight.dtype == torch.bfloat16) != tied


def test_a_run_in_mixed_precision_ends_with_all_its_figures(tmp_path: Path) -> None:
    metrics = run(tiny(tmp_path, "trainer.precision=bf16-mixed", "hardware=none"))
    agreement = {key for key in metrics if key.startswith("attention/")}
    assert len(agreement) == 2  # layers
    assert all(metrics[key] >= 0 for key in agreement)
