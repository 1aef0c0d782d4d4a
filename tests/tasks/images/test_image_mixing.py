"""What a recipe's mixing does to a batch of images, and whose labels it then has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from had.tasks.base import Batch, Task
from had.tasks.mixing import MixingPlan
from tests.tasks.images.pictures import write_folder

Mix = Callable[..., Batch]

BATCH: Batch = {
    "inputs": {"pixel_values": torch.arange(2.0)[:, None, None, None].expand(2, 3, 4, 4)},
    "labels": torch.tensor([0, 1]),
}
HALVES = MixingPlan(torch.tensor([True, False]), torch.tensor([1, 0]), torch.tensor([0.5, 0.5]))


@pytest.fixture
def mix(make_task: Callable[..., Task], tmp_path: Path) -> Mix:
    """The batch, mixed by a task of two classes with these overrides."""
    root = write_folder(tmp_path / "images", {"ash": 4, "birch": 2})

    def mixed(*overrides: str) -> Batch:
        task = make_task("imagefolder", f"task.path={root}", *overrides)
        task.read()
        return task.mix(BATCH, HALVES)

    return mixed


def test_a_recipe_may_mix_images(mix: Mix) -> None:
    """The upper half is an image's own, the rest its partner's."""
    mixed = mix()
    pixels = mixed["inputs"]["pixel_values"]
    assert pixels[0, 0, :, 0].tolist() == [0, 0, 1, 1]
    assert (pixels[1] == 1).all()
    assert mixed["labels"].tolist() == [[0.5, 0.5], [0, 1]]


def test_images_that_augmentation_mixes_are_left(mix: Mix) -> None:
    mixed = mix("task.augment.cutmix=1")
    assert torch.equal(mixed["inputs"]["pixel_values"], BATCH["inputs"]["pixel_values"])
    assert torch.equal(mixed["labels"], BATCH["labels"])


def test_without_labels_mixtures_have_none(mix: Mix) -> None:
    assert set(mix("task.labels=false")) == {"inputs"}
