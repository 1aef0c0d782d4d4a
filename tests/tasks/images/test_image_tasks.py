"""The tasks on images over small files: what is found, in which order, and what is refused."""

from __future__ import annotations

import os
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from had.errors import HadError
from had.tasks.base import Task
from had.tasks.images.decode import decode
from tests.tasks.images.pictures import PREPROCESSING, write_folder

Make = Callable[..., Task]

# imagefolder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """train with 4 + 2 images, val with 2 + 1."""
    write_folder(tmp_path / "images" / "train", {"ash": 4, "birch": 2})
    write_folder(tmp_path / "images" / "val", {"ash": 2, "birch": 1})
    return tmp_path / "images"


def make_folder(make_task: Make, path: Path, *overrides: str) -> Task:
    cache = f"paths.cache={path.parent / 'cache'}"
    return make_task("imagefolder", f"task.path={path}", cache, *overrides)


def test_folders_are_classes_in_the_order_of_their_names(make_task: Make, folder: Path) -> None:
    task = make_folder(make_task, folder)
    data = task.encode(PREPROCESSING)
    assert task.label_names == ["ash", "birch"]
    assert data.train.labels.tolist() == [0, 0, 0, 0, 1, 1]
    assert data.evaluation[""].labels.tolist() == [0, 0, 1]
    stored = data.train.inputs["pixel_values"]
    assert (stored.dtype, stored.shape) == (torch.uint8, (6, 3, 20, 20))
    assert torch.equal(stored[5], decode(folder / "train" / "birch" / "1.png", 20, "bicubic"))


def test_a_batch_becomes_model_input(make_task: Make, folder: Path) -> None:
    data = make_folder(make_task, folder).encode(PREPROCESSING)
    for draw in (None, 3):
        batch = data.on_device(data.train.__getitems__([0, 4]), draw)
        assert batch["inputs"]["pixel_values"].shape == (2, 3, 16, 16)
        assert batch["labels"].tolist() == [0, 1]


def test_without_folders_for_it_a_share_of_every_class_is_held_out(
    make_task: Make, tmp_path: Path
) -> None:
    root = write_folder(tmp_path / "images", {"ash": 10, "birch": 5})
    task = make_folder(make_task, root, "task.eval_fraction=0.2")
    data = task.encode(PREPROCESSING)
    assert data.train.labels.bincount().tolist() == [8, 4]
    assert data.evaluation[""].labels.bincount().tolist() == [2, 1]
    both = [data.train.inputs["pixel_values"], data.evaluation[""].inputs["pixel_values"]]
    assert len(torch.cat(both).flatten(1).unique(dim=0)) == 15


def test_each_class_of_a_deeper_tree_counts_all_its_images(make_task: Make, folder: Path) -> None:
    write_folder(folder / "train" / "ash" / "more", {"deep": 3}, suffix=".JPEG")
    (folder / "train" / "ash" / "notes.txt").write_text("no image")
    (folder / "train" / ".hidden").mkdir()
    data = make_folder(make_task, folder).encode(PREPROCESSING)
    assert data.train.labels.bincount().tolist() == [7, 2]


def refused(make_task: Make, path: Path, *overrides: str) -> str:
    with pytest.raises(HadError) as caught:
        make_folder(make_task, path, *overrides).encode(PREPROCESSING)
    return str(caught.value)


def test_a_missing_folder(make_task: Make, tmp_path: Path) -> None:
    assert re.search(
        r"task\.path=.*nowhere: no such folder", refused(make_task, tmp_path / "nowhere")
    )


def test_an_empty_folder(make_task: Make, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    assert "no images in it; expected <class>/<image>" in refused(make_task, tmp_path / "images")


def test_images_without_class_folders(make_task: Make, tmp_path: Path) -> None:
    write_folder(tmp_path, {"images": 3})
    assert "its 3 images lie side by side" in refused(make_task, tmp_path / "images")


def test_one_class_only(make_task: Make, tmp_path: Path) -> None:
    write_folder(tmp_path / "images", {"ash": 3})
    assert "all images are of one class, 'ash'" in refused(make_task, tmp_path / "images")


def test_a_class_without_images(make_task: Make, folder: Path) -> None:
    (folder / "train" / "cedar").mkdir()
    assert re.search(r"train: no images of class cedar", refused(make_task, folder))


def test_a_class_that_training_lacks(make_task: Make, folder: Path) -> None:
    write_folder(folder / "val", {"cedar": 1})
    message = refused(make_task, folder)
    assert re.search(r"val: 1 of its classes are not in .*train: cedar \(as .*0\.png\)", message)


def test_a_class_that_evaluation_lacks_is_fine(make_task: Make, folder: Path) -> None:
    shutil.rmtree(folder / "val" / "birch")
    assert make_folder(make_task, folder).encode(PREPROCESSING).evaluation[""].labels.tolist() == [
        *(0, 0)
    ]


def test_impossible_settings_are_refused_together(make_task: Make, folder: Path) -> None:
    with pytest.raises(Exception, match=r"task\.decode=twice") as caught:
        make_folder(make_task, folder, "task.decode=twice", "task.crop=2", "task.augment.flip=3")
    assert all(key in str(caught.value) for key in ("task.crop=2", "task.augment.flip=3"))


def test_models_of_other_shapes_are_refused(make_task: Make, folder: Path) -> None:
    with pytest.raises(HadError, match="squares of 3 channels, or 1"):
        make_folder(make_task, folder).encode(replace(PREPROCESSING, size=(3, 16, 32)))


# tiny_imagenet


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    root = tmp_path / "tiny_imagenet_200"
    for wnid in ("n01", "n02"):
        write_folder(root / "train" / wnid, {"images": 2}, suffix=".JPEG")
    write_folder(root / "val", {"images": 3}, suffix=".JPEG")
    lines = [f"{number}.JPEG\t{wnid}\t0\t0\t62\t62" for number, wnid in enumerate(("n02", "n01"))]
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    return root


def make_tiny(make_task: Make, root: Path) -> Task:
    return make_task("tiny_imagenet", f"paths.cache={root.parent / 'cache'}", data=root.parent)


def test_validation_labels_are_those_of_the_annotations(make_task: Make, tiny: Path) -> None:
    task = make_tiny(make_task, tiny)
    data = task.encode(PREPROCESSING)
    assert task.label_names == ["n01", "n02"]
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    assert data.evaluation[""].labels.tolist() == [1, 0]
    assert data.train.inputs["pixel_values"].shape[-1] == 64
    assert data.on_device.crop == 1.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0.JPEG\n", r"txt:1: expected <image><tab><class>"),
        ("9.JPEG\tn01\n", r"txt:1: 9\.JPEG is not in"),
        ("", "it is empty"),
        ("0.JPEG\tn03\n", r"1 of its classes are not in .*: n03"),
    ],
)
def test_wrong_annotations(make_task: Make, tiny: Path, content: str, message: str) -> None:
    (tiny / "val" / "val_annotations.txt").write_text(content)
    with pytest.raises(HadError, match=message):
        make_tiny(make_task, tiny).read()


def test_an_incomplete_tree(make_task: Make, tiny: Path) -> None:
    shutil.rmtree(tiny / "val")
    with pytest.raises(HadError, match="no folder val in it"):
        make_tiny(make_task, tiny).read()


# imagenet_sample


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    return write_folder(tmp_path, {"imagenet_sample_1000_crop224_derived": 4})


def make_sample(make_task: Make, root: Path, *overrides: str) -> Task:
    cache = f"paths.cache={root / 'cache'}"
    return make_task("imagenet_sample", cache, *overrides, data=root)


def test_the_order_of_names_is_that_of_classes(make_task: Make, sample: Path) -> None:
    task = make_sample(make_task, sample)
    data = task.encode(PREPROCESSING)
    assert task.num_outputs == 4
    assert data.evaluation[""].labels.tolist() == [0, 1, 2, 3]
    assert torch.equal(
        data.train.inputs["pixel_values"], data.evaluation[""].inputs["pixel_values"]
    )


def test_other_images_take_part_in_training_alone(make_task: Make, sample: Path) -> None:
    write_folder(sample / "any", {"x": 2, "y": 3})
    given = (f"task.images={sample / 'any'}", "task.images_stored=12")
    task = make_sample(make_task, sample, *given)
    data = task.encode(PREPROCESSING)
    assert task.num_outputs == 4
    assert data.train.inputs["pixel_values"].shape == (5, 3, 12, 12)
    assert data.evaluation[""].inputs["pixel_values"].shape == (4, 3, 16, 16)


def test_what_the_figures_are_worth_is_said(
    make_task: Make, sample: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        make_sample(make_task, sample).read()
    assert "may read high" in caplog.text
    assert "distilling on the evaluation images themselves" in caplog.text


def test_no_images_to_distil_on(make_task: Make, sample: Path) -> None:
    with pytest.raises(HadError, match=r"task\.images=.*no such folder, or no images"):
        make_sample(make_task, sample, f"task.images={sample / 'any'}").read()


# cifar


NAMES = ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class Runs:
    """Unpickled without care, this would run a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


def write_cifar(root: Path) -> Path:
    """CIFAR-10's files with 3 images a batch, whose first pixel is (row, 50, 100)."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": NAMES}, 2))
    for index, file in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        data = np.zeros((3, 3072), np.uint8)
        data[:, 0], data[:, 1024], data[:, 2048] = np.arange(3) + 3 * index, 50, 100
        batch = {"data": data, "labels": [index, 9, 10 % (index + 1)]}
        (folder / file).write_bytes(pickle.dumps(batch, 2))
    return folder


def make_cifar(make_task: Make, root: Path) -> Task:
    return make_task("cifar10", f"paths.cache={root / 'cache'}", data=root)


def test_cifar_is_read_from_its_official_files(make_task: Make, tmp_path: Path) -> None:
    write_cifar(tmp_path)
    task = make_cifar(make_task, tmp_path)
    data = task.encode(PREPROCESSING)
    assert task.label_names == NAMES
    assert data.train.labels[:6].tolist() == [0, 9, 0, 1, 9, 0]
    pixels = data.train.inputs["pixel_values"]
    assert pixels.shape == (15, 3, 32, 32)
    assert pixels[:, 0, 0, 0].tolist() == list(range(15))
    assert pixels[7, :, 0, 0].tolist() == [7, 50, 100]


def test_a_cifar_file_cannot_run_code(make_task: Make, tmp_path: Path) -> None:
    file = write_cifar(tmp_path) / "data_batch_3"
    file.write_bytes(pickle.dumps({"data": Runs(), "labels": []}))
    with pytest.raises(HadError, match=r"data_batch_3: damaged.*it asks for posix\.system"):
        make_cifar(make_task, tmp_path).read()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80", "damaged, or not a CIFAR file"),
        (pickle.dumps([1]), "no entry 'data' in it"),
        (pickle.dumps({"data": np.zeros((3, 5), np.uint8)}), "not rows of 3,072 bytes"),
    ],
)
def test_a_damaged_cifar_file(
    make_task: Make, tmp_path: Path, content: bytes, message: str
) -> None:
    (write_cifar(tmp_path) / "data_batch_2").write_bytes(content)
    with pytest.raises(HadError, match=message):
        make_cifar(make_task, tmp_path).read()


def test_cifar_out_of_reach_names_both_ways(make_task: Make, tmp_path: Path) -> None:
    with pytest.raises(HadError, match=r"no such folder, and the Hub has no uoft-cs/cifar10"):
        make_cifar(make_task, tmp_path).read()
