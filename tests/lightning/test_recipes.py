"""Every recipe runs to its end, and its student computes what the recipe says, also from disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

import had
from had.attention.module import hamming_layers
from had.runner import run
from tests.lightning.helpers import CONF, tiny

RECIPES = sorted(path.stem for path in (CONF / "binarization").glob("*.yaml"))


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One teacher for all recipes."""
    return f"paths.cache={tmp_path_factory.mktemp('cache')}"


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_runs_and_its_student_survives_the_disk(
    recipe: str, shared_cache: str, tmp_path: Path
) -> None:
    cfg = tiny(tmp_path, f"binarization={recipe}", shared_cache, "hardware=none", "callbacks=none")
    cfg.schedule.epochs_factor = 1.0
    cfg.binarization.recent = min(1, cfg.binarization.recent)  # few keys are kept here
    cfg.sparsity.minimum = 1
    metrics = run(cfg)
    assert metrics["score/drop"] == metrics["score/teacher"] - metrics["score/student"]
    student = had.load_student(tmp_path / "run" / "student")
    layers = hamming_layers(student)
    assert {layer.options.n for layer in layers} == {cfg.sparsity.n}
    assert {layer.options.weights for layer in layers} == {cfg.binarization.weights}
    exact = cfg.binarization.relaxation == "sign"
    assert {layer.relaxation.exact_signs for layer in layers} == {exact}


@pytest.mark.parametrize(("recipe", "bits"), [("had", True), ("topn_fp", False)])
def test_only_full_precision_scores_see_the_size_of_a_query(recipe: str, bits: bool) -> None:
    """Twice the query weights: the same signs, but other scores in full precision."""
    torch.manual_seed(0)
    vit = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, embed_dim=16, depth=1, num_heads=2, num_classes=3
    ).eval()
    student = had.binarize(vit, n=3, binarization=recipe)
    image = torch.randn(2, 3, 32, 32)
    before = student(image)
    with torch.no_grad():
        student.blocks[0].attn.qkv.weight[:16] *= 2
        student.blocks[0].attn.qkv.bias[:16] *= 2
    assert torch.equal(student(image), before) == bits
