"""The examples of the pages run as they stand."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

import had
from had.attention.backends import BACKENDS, AttentionCall
from had.attention.functional import binarize
from had.attention.module import hamming_layers
from had.errors import HadError
from had.hardware import ModelGeometry, compare
from tests.integration.command_line import called

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
BRIEF = (
    *("trainer=cpu", "trainer.enable_progress_bar=false", "logger=none", "hardware=none"),
    *("task.examples=100", "task.epochs=1"),
)


def test_a_task_a_model_and_a_recipe_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    run_dir = tmp_path / "run"
    ended = called(
        capfd.readouterr,
        *("train", "--config-dir", str(EXAMPLES / "conf"), "task=bars", "model=vit_wide"),
        *("binarization=gentle", *BRIEF, f"run_dir={run_dir}", f"paths.cache={tmp_path}"),
    )
    assert ended.status == 0, ended.err
    record = json.loads((run_dir / "record.json").read_text())
    assert (record["task"], record["model"]) == ("bars", "vit_wide")
    assert (record["binarization"], record["schedule"]) == ("gentle", "gentle")
    assert 0 <= json.loads((run_dir / "metrics.json").read_text())["score/student"] <= 100


def test_bars_can_be_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise a row of ones is a horizontal bar."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from bars import BarsTask

    task = BarsTask(
        name="bars", modality="image", objective="classification", metric_names=["accuracy"],
        score="accuracy", topn=4, examples=50, noise=0.0, epochs=1, learning_rate=1e-3,
        batch_size=10, eval_batch_size=10,
    )  # fmt: skip
    data = task.encode()
    assert (len(data.train), len(data.evaluation[""])) == (40, 10)
    batch = data.train.__getitems__(range(40))
    images = batch["inputs"]["pixel_values"][:, 0]
    horizontal = images.sum(2).amax(1) == 8
    assert torch.equal(torch.where(horizontal, 0, 1), batch["labels"])
    with pytest.raises(HadError, match=r"task\.examples=3"):
        replace(task, examples=3)


def test_an_accelerator_of_ones_own() -> None:
    file = str(EXAMPLES / "accelerators" / "small_array.yaml")
    bert = ModelGeometry(layers=12, heads=12, head_dim=64)
    dense, ours = compare(bert.workload(context=128, n=30), ["standard", file])
    assert 0 < ours.area_mm2 < dense.area_mm2
    assert 0 < ours.energy_per_query_nj < dense.energy_per_query_nj


@pytest.fixture
def gather() -> Iterator[str]:
    """The example's backend, registered for one test."""
    name = runpy.run_path(str(EXAMPLES / "gather_backend.py"))["GatherBackend"].name
    yield name
    del BACKENDS[name]


@pytest.mark.parametrize("width", [2, 32], ids=["many ties", "few ties"])
@pytest.mark.parametrize("n", [1, 5, 100])
def test_a_backend_of_ones_own(gather: str, width: int, n: int) -> None:
    """Grouped queries; padding; one row that may see no key."""
    torch.manual_seed(0)
    query, key = binarize(torch.randn(2, 4, 7, width)), binarize(torch.randn(2, 2, 19, width))
    mask = torch.rand(2, 1, 7, 19) > 0.3
    mask[0, 0, 3] = False
    call = AttentionCall(query, key, torch.randn(2, 2, 19, 8), n, 0.1, mask, signs=True)
    assert BACKENDS[gather].supports(call)
    output = BACKENDS[gather].attend(call)
    torch.testing.assert_close(output, BACKENDS["reference"].attend(call))
    assert torch.equal(output[0, :, 3], torch.zeros(4, 8))


def test_a_backend_of_ones_own_in_a_model(gather: str) -> None:
    images = torch.randn(2, 3, 32, 32)
    outputs = []
    for backend in (gather, "reference"):
        torch.manual_seed(0)
        student = had.binarize(
            timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=1),
            n=4,
            calibration=[{"pixel_values": images}],
            backend=backend,
        )
        outputs.append(student.eval()(images))
    torch.testing.assert_close(*outputs)


def test_a_student_from_python() -> None:
    """It compares what it saved and loaded itself."""
    names = runpy.run_path(str(EXAMPLES / "first_student.py"))
    assert names["logits"].shape == (8, 1000)
    assert hamming_layers(names["student"])
