"""timm models by architecture or directory: sizes, preprocessing, heads, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import had
from had.errors import HadError
from had.models.convert import record_attention
from had.models.images import ImagePreprocessor
from had.models.timm import FAMILY, TimmSource

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32}
CONFIGURED = {
    "input_size": [3, 32, 32],
    "mean": [0.5, 0.4, 0.3],
    "std": [0.3, 0.2, 0.1],
    "interpolation": "bilinear",
    "crop_pct": 0.8,
    "num_classes": 5,
    "first_conv": "patch_embed.proj",
}


def source(name: str, pretrained: bool = True, **arguments: Any) -> TimmSource:
    return TimmSource(
        label="vit", name=name, modality="image", pretrained=pretrained, arguments=arguments
    )


def directory(path: Path, architecture: str, classifier: Any = "head") -> Path:
    """A model of two layers and five classes, in the form in which timm stores models."""
    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=5, **SMALL)
    path.mkdir()
    config = {
        "architecture": architecture,
        "num_classes": 5,
        "model_args": SMALL,
        "pretrained_cfg": {**CONFIGURED, "classifier": classifier},
    }
    (path / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), path / "model.safetensors")
    return path


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    return directory(tmp_path / "vit", "vit_tiny_patch16_224")


@pytest.fixture
def distilled(tmp_path: Path) -> Path:
    heads = ["head", "head_dist"]
    return directory(tmp_path / "deit", "deit_tiny_distilled_patch16_224", heads)


def test_preprocessing_is_what_the_directory_says(vit: Path) -> None:
    expected = ImagePreprocessor((3, 32, 32), (0.5, 0.4, 0.3), (0.3, 0.2, 0.1), "bilinear", 0.8)
    assert source(str(vit)).preprocessor() == expected


def test_preprocessing_follows_another_image_size(vit: Path) -> None:
    assert source(str(vit), img_size=64).preprocessor().size == (3, 64, 64)


def test_with_a_given_teacher_its_preprocessing_counts(vit: Path) -> None:
    """The student is its copy; the model named beside it wants other statistics."""
    named = source("deit_tiny_patch16_224.fb_in1k")
    assert named.at(str(vit)).preprocessor().mean == (0.5, 0.4, 0.3) != named.preprocessor().mean


def test_deit_and_vit_differ_in_their_preprocessing() -> None:
    """ImageNet's statistics for DeiT, 0.5 for the augreg weights of ViT."""
    deit = source("deit_tiny_patch16_224.fb_in1k").preprocessor()
    vit = source("vit_tiny_patch16_224.augreg_in21k_ft_in1k").preprocessor()
    assert deit.mean == (0.485, 0.456, 0.406)
    assert vit.mean == (0.5, 0.5, 0.5)
    assert (deit.size, deit.crop, deit.interpolation) == ((3, 224, 224), 0.9, "bicubic")


def test_the_head_is_kept_or_replaced_and_the_body_kept(vit: Path) -> None:
    stored = timm.create_model(f"local-dir:{vit}", pretrained=True)
    same, other = source(str(vit)).build(5, []), source(str(vit)).build(3, [])
    assert torch.equal(same.head.weight, stored.head.weight)
    assert other.head.weight.shape == (3, 32)
    assert torch.equal(other.blocks[1].attn.qkv.weight, stored.blocks[1].attn.qkv.weight)


def test_a_teacher_must_have_the_tasks_head(vit: Path) -> None:
    with pytest.raises(HadError, match="its head has 5 outputs, the task 3"):
        source(str(vit)).build(3, [], complete=True)


def test_the_distillation_token_has_a_head_of_its_own(distilled: Path, tmp_path: Path) -> None:
    """Outside of timm's own distillation the two heads are averaged, also in training mode."""
    model = source(str(distilled)).build(3, [])
    assert model.num_prefix_tokens == 2
    images = {"pixel_values": torch.randn(2, 3, 32, 32)}
    record_attention(model)
    features = model.forward_features(images["pixel_values"])
    mean = (model.head(features[:, 0]) + model.head_dist(features[:, 1])) / 2
    torch.testing.assert_close(FAMILY.logits(model.train(), images), mean)
    student = had.binarize(source(str(distilled)).build(3, []), 2, calibration=[images])
    had.save(student, tmp_path / "student")
    loaded = had.load_student(tmp_path / "student")
    assert torch.equal(FAMILY.logits(loaded, images), FAMILY.logits(student.eval(), images))


def test_images_that_do_not_divide_into_patches_are_refused_at_once(vit: Path) -> None:
    message = r"40 x 40 pixels do not divide into patches of 16 x 16; make model\.arguments"
    with pytest.raises(HadError, match=message):
        source(str(vit), img_size=40).check()


def test_an_unknown_argument_is_refused_at_once() -> None:
    with pytest.raises(HadError, match=r"cannot be built: .*dept"):
        source("vit_tiny_patch16_224", dept=3).check()


def test_an_unknown_architecture_names_those_that_are_close() -> None:
    with pytest.raises(HadError, match=r"no such model; close to it: .*vit_tiny_patch16_224"):
        source("vit_tiny_patch16").check()


def test_weights_out_of_reach_have_two_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **kwargs: Any) -> nn.Module:
        raise FileNotFoundError("no connection")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(HadError, match=r"on the Hub \(no connection\); give model\.name=.*online"):
        source("deit_tiny_patch16_224.fb_in1k").build(2, [])
