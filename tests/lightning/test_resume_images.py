"""A resumed run sees the same augmented images as an uninterrupted one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from had.lightning.data import draw_seed
from had.runner import run
from tests.lightning.helpers import tiny
from tests.lightning.test_resume import EVERY, ended_by, outcome
from tests.tasks.images.pictures import write_folder

AUGMENTED = (
    *("task=imagefolder", "task.epochs=2", "schedule.epochs=4", "task.batch_size=8"),
    *("task.augment.randaugment=1", "task.augment.erase=0.5", "task.augment.mixup=0.4"),
    *("binarization=had_plus", "hardware=none"),
)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "images", {"ash": 12, "birch": 12, "cedar": 6})


def augmented(directory: Path, images: Path, *more: str) -> DictConfig:
    return tiny(directory, EVERY, *AUGMENTED, f"task.path={images}", *more)


@pytest.mark.parametrize("decode", ["once", "each_time"])
def test_augmentation_continues_where_it_was(decode: str, images: Path, tmp_path: Path) -> None:
    given = (f"task.decode={decode}", "task.workers=0")
    whole = outcome(tmp_path / "whole", run(augmented(tmp_path / "whole", images, *given)))
    cut = tmp_path / "cut"
    with pytest.raises(ConnectionAbortedError):
        run(augmented(cut, images, *given, ended_by("PowerCut", 5, "student")))
    assert outcome(cut, run(augmented(cut, images, *given, "resume=auto"))) == whole


def test_other_augmentation_is_another_teacher(images: Path, tmp_path: Path) -> None:
    run(augmented(tmp_path, images, "schedule=none"))
    run(augmented(tmp_path, images, "schedule=none", "task.augment.flip=0.1"))
    assert len(list((tmp_path / "cache" / "teachers").iterdir())) == 2


def test_every_batch_and_process_draws_for_itself() -> None:
    seeds = [draw_seed(seed, batch, rank) for seed in (0, 1) for batch in (0, 1) for rank in (0, 1)]
    assert len(set(seeds)) == 8
    for seed in seeds:
        torch.Generator().manual_seed(seed)  # in range
