"""Runs on a user's own images through the command line, and pictures of their attention."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import ViTImageProcessor

from had.cli import main
from tests.integration.command_line import Ended, called, overrides
from tests.models.test_image_processors import directory
from tests.tasks.images.pictures import picture, write_folder

TINY = (
    *("task=imagefolder", "model=vit_digits", "model.arguments.depth=2"),
    *("model.arguments.embed_dim=32", "model.arguments.num_heads=2", "model.arguments.img_size=16"),
    *(
        "model.arguments.patch_size=4",
        "model.arguments.in_chans=3",
        "task.epochs=2",
        "sparsity.n=5",
    ),
    *("task.batch_size=8", "trainer=cpu", "trainer.enable_progress_bar=false", "logger=none"),
    "hardware=none",
)
PLAIN = tuple(text for text in TINY if not text.startswith("model"))  # for another model
CLASSES = {"ash": 12, "birch": 12}

Train = Callable[..., Ended]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "images", CLASSES)


@pytest.fixture
def train(tmp_path: Path, images: Path, capfd: pytest.CaptureFixture[str]) -> Train:
    """`had train` on the images, with further overrides."""
    sound = (f"task.path={images}", f"paths.cache={tmp_path / 'cache'}")

    def run(*given: str, base: tuple[str, ...] = TINY) -> Ended:
        arguments = overrides(*sound, f"run_dir={tmp_path / 'run'}", *given, base=base)
        return called(capfd.readouterr, "train", *arguments)

    return run


def metrics(run_dir: Path) -> dict[str, float]:
    return json.loads((run_dir / "metrics.json").read_text())


# Runs.


def test_fifty_images_give_a_student(train: Train, tmp_path: Path) -> None:
    assert train().status == 0
    found = metrics(tmp_path / "run")
    assert 0 <= found["student/agreement"] <= 1
    assert found["score/drop"] == pytest.approx(found["score/teacher"] - found["score/student"])


def test_odd_files_take_part(train: Train, images: Path, tmp_path: Path) -> None:
    """Grey, CMYK, transparent, and one that cannot be read: it is named, counted and left out."""
    picture(1).convert("L").save(images / "ash" / "grey.png")
    picture(2).convert("CMYK").save(images / "ash" / "inks.jpg")
    picture(3).convert("RGBA").save(images / "birch" / "clear.png")
    (images / "birch" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    assert train().status == 0
    log = (tmp_path / "run" / "train.log").read_text()
    assert log.count("1 of ") == 1
    assert "broken.jpg (" in log
    assert "left out (task.strict=true refuses them)" in log


def test_images_decoded_each_time_give_the_same_run(train: Train, tmp_path: Path) -> None:
    assert train().status == 0
    once = metrics(tmp_path / "run")
    assert train("task.decode=each_time", "task.workers=1").status == 0
    again = metrics(tmp_path / "run")
    for key in ("student/accuracy", "teacher/accuracy", "student/agreement"):
        assert again[key] == once[key]


def test_a_teacher_without_labels(train: Train, tmp_path: Path) -> None:
    """The sample's task takes a teacher for its 24 images as they are, and never their labels."""
    assert train("task.eval_fraction=0.2").status == 0
    (teacher,) = (tmp_path / "cache" / "teachers").iterdir()
    flat = tmp_path / "sample"
    flat.mkdir()
    for number in range(2):
        picture(number).save(flat / f"{number}.png")
    ended = train(
        *("task=imagenet_sample", f"task.path={flat}", f"teacher={teacher}", "task.batch_size=2")
    )
    assert ended.status == 0, ended.err
    assert "student/agreement" in metrics(tmp_path / "run")


def test_a_model_of_transformers_with_its_own_processor(
    train: Train, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Trained, evaluated again from its directory alone, and drawn."""
    vit = directory(tmp_path / "vit", ViTImageProcessor(size=16))
    ended = train("model=transformers_image", f"model.name={vit}", base=PLAIN)
    assert ended.status == 0, ended.err
    again = called(capfd.readouterr, "eval", str(tmp_path / "run"))
    assert again.status == 0, again.err
    image = str(tmp_path / "images" / "ash" / "3.png")
    drawn = called(capfd.readouterr, "attention-maps", str(tmp_path / "run"), "--image", image)
    assert drawn.status == 0, drawn.err
    assert list((tmp_path / "run" / "attention_maps").glob("*.png"))


# Bad input.


@pytest.mark.parametrize(
    ("spoil", "given", "message"),
    [
        (lambda root: None, ["model.arguments.img_size=18"], "18 x 18 pixels do not divide into"),
        (lambda root: shutil.rmtree(root / "ash"), [], "all images are of one class, 'birch'"),
        (shutil.rmtree, [], "no such folder"),
        (
            lambda root: [shutil.rmtree(root / name) for name in CLASSES],
            [],
            "no images in it; expected <class>/<image>",
        ),
        (
            lambda root: (root / "ash" / "0.png").write_bytes(b"broken"),
            ["task.strict=true"],
            "1 of 20 images cannot be read",
        ),
        (lambda root: None, ["task=imagenet_sample"], "teacher=null: task=imagenet_sample has no"),
    ],
    ids=["size", "one class", "no folder", "empty", "strict", "no teacher"],
)
def test_bad_input_is_one_message_before_any_training(
    spoil: Callable[[Path], object],
    given: list[str],
    message: str,
    train: Train,
    images: Path,
    tmp_path: Path,
) -> None:
    spoil(images)
    ended = train(*given)
    assert ended.status == 2
    assert sum(message in line for line in ended.err) == 1, ended.err
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_class_in_val_alone(train: Train, tmp_path: Path) -> None:
    write_folder(tmp_path / "split" / "train", CLASSES)
    write_folder(tmp_path / "split" / "val", {"ash": 1, "cedar": 1})
    ended = train(f"task.path={tmp_path / 'split'}")
    assert ended.status == 2
    assert any("classes are not in" in line and "cedar" in line for line in ended.err)


# Pictures.


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, its student as it was converted."""
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    root = tmp_path_factory.mktemp("pictures")
    images = write_folder(root / "images", CLASSES)
    given = (f"task.path={images}", f"paths.cache={root / 'cache'}", f"run_dir={root / 'run'}")
    assert main(["train", *overrides(*given, "schedule=none", base=TINY)]) == 0
    return root / "run"


def maps(capfd: pytest.CaptureFixture[str], run_dir: Path, *given: str) -> Ended:
    image = run_dir.parent / "images" / "ash" / "3.png"
    return called(capfd.readouterr, "attention-maps", str(run_dir), "--image", str(image), *given)


def test_pictures_show_more_heads_side_by_side(
    run_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pictures"
    assert maps(capfd, run_dir, "--out", str(out)).status == 0
    assert maps(capfd, run_dir, "--out", str(out), "--layer", "0", "--head", "1").status == 0
    both = Image.open(out / "3_layer1.png")
    one = Image.open(out / "3_layer0_head1.png")
    assert both.size[0] > one.size[0]
    assert len(torch.tensor(both.convert("L").getextrema()).unique()) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--layer", "2"], "--layer 2: there are 2, counted from 0"),
        (["--head", "-1"], "--head -1: there are 2, counted from 0"),
        (["--image", "nowhere.png"], "--image nowhere.png: FileNotFoundError"),
    ],
)
def test_what_cannot_be_drawn(
    given: list[str], message: str, run_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = maps(capfd, run_dir, *given)
    assert ended.status == 2
    assert message in ended.err[-1]


def test_a_teacher_that_is_gone(run_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    away = (run_dir.parent / "cache").rename(run_dir.parent / "away")
    ended = maps(capfd, run_dir)
    away.rename(run_dir.parent / "cache")
    assert ended.status == 2
    assert "its teacher cannot be loaded: " in ended.err[-1]
    assert "teacher.json says where it is looked for" in ended.err[-1]


def test_a_folder_that_is_no_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ended = maps(capfd, tmp_path)
    assert ended.status == 2
    assert "not a finished run, it has no config.yaml" in ended.err[-1]
