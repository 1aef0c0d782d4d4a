"""Image models of transformers: what their processors do, and what cannot be done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    CLIPImageProcessor,
    ConvNextImageProcessor,
    DeiTImageProcessor,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from had.errors import HadError
from had.models.transformers_images import TransformersImageSource
from had.tasks.images.augment import Augmentation
from had.tasks.images.decode import decode
from had.tasks.images.pixels import ImageBatches, stored_side
from tests.tasks.images.pictures import picture

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
BICUBIC = 3  # as PIL numbers it


def directory(path: Path, processor: Any = None, side: int = 16) -> Path:
    """A model of two layers in the form in which transformers stores models."""
    config = ViTConfig(**SMALL, intermediate_size=32, image_size=side, patch_size=4, num_labels=3)
    ViTForImageClassification(config).save_pretrained(path)
    if processor is not None:
        processor.save_pretrained(path)
    return path


def source(path: Path | str, **settings: Any) -> TransformersImageSource:
    return TransformersImageSource(label="vit", name=str(path), modality="image", **settings)


@pytest.mark.parametrize(
    ("processor", "crop"),
    [
        (ViTImageProcessor(size={"height": 16, "width": 16}), 1.0),
        (DeiTImageProcessor(size={"height": 20, "width": 20}, crop_size=16), 0.8),
        (CLIPImageProcessor(size={"shortest_edge": 20}, crop_size=16), 0.8),
        (ConvNextImageProcessor(size={"shortest_edge": 16}, crop_pct=0.875), 0.875),
    ],
)
def test_crops_of_processors_are_found(processor: Any, crop: float, tmp_path: Path) -> None:
    found = source(directory(tmp_path / "vit", processor)).preprocessor()
    assert found.size == (3, 16, 16)
    assert found.crop == pytest.approx(crop)
    assert found.mean == tuple(processor.image_mean)


def test_the_task_does_what_the_processor_does(tmp_path: Path) -> None:
    """On images that are no squares; the two round resampled bytes in different places."""
    processor = CLIPImageProcessor(size={"shortest_edge": 20}, crop_size=16, resample=BICUBIC)
    settings = source(directory(tmp_path / "vit", processor)).preprocessor()
    images = [picture(number, 50, 40) for number in range(4)]
    expected = processor(images, return_tensors="pt")["pixel_values"]
    side = stored_side(16, settings.crop)
    stored = torch.stack([decode(image, side, settings.interpolation) for image in images])
    batches = ImageBatches(
        side=16,
        channels=3,
        mean=settings.mean,
        std=settings.std,
        interpolation=settings.interpolation,
        crop=settings.crop,
        classes=3,
        augmentation=Augmentation(),
    )
    done = batches({"inputs": {"pixel_values": stored}, "labels": torch.zeros(4)})
    levels = (done["inputs"]["pixel_values"] - expected).abs().amax((0, 2, 3)) * 255
    assert (levels * torch.tensor(settings.std)).max() < 2.5


def test_a_model_that_takes_pixels_as_they_are_gets_them(tmp_path: Path) -> None:
    path = directory(tmp_path / "vit", ViTImageProcessor(size=16, do_normalize=False))
    found = source(path).preprocessor()
    assert (found.mean, found.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_settings_leave_the_processors_file_beside_a_student(tmp_path: Path) -> None:
    found = source(directory(tmp_path / "vit", ViTImageProcessor(size=16))).preprocessor()
    found.save_pretrained(directory(tmp_path / "student"))
    assert source(tmp_path / "student").preprocessor().mean == found.mean


def test_bytes_scaled_otherwise_are_refused(tmp_path: Path) -> None:
    path = directory(tmp_path / "vit", ViTImageProcessor(size=16, rescale_factor=1 / 127.5))
    with pytest.raises(HadError, match=r"scales bytes by 0\.00784"):
        source(path).preprocessor()


def test_a_missing_processor_is_named(tmp_path: Path) -> None:
    with pytest.raises(HadError, match="its image processor cannot be loaded"):
        source(directory(tmp_path / "vit")).preprocessor()
    with pytest.raises(HadError, match="an architecture, which has no image processor"):
        source("vit", pretrained=False).preprocessor()


def test_images_that_do_not_divide_into_patches_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(HadError, match="18 pixels do not divide into patches of 4"):
        source(directory(tmp_path / "vit"), arguments={"image_size": 18}).check()


def test_larger_images_keep_the_processors_crop(tmp_path: Path) -> None:
    processor = DeiTImageProcessor(size={"height": 20, "width": 20}, crop_size=16)
    path = directory(tmp_path / "vit", processor)
    found = source(path, arguments={"image_size": 32}).preprocessor()
    assert (found.size, found.crop) == ((3, 32, 32), pytest.approx(0.8))
    assert stored_side(32, found.crop) == 40
