"""Two processes on one machine: the run of one, and its end by a signal."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from had.cli import main
from had.evaluation import evaluate_run
from had.lightning.data import ShuffledBatches
from had.tasks.base import EncodedDataset
from tests.forked import Forked
from tests.integration import material
from tests.integration.command_line import forked, overrides, spawned

pytestmark = pytest.mark.slow
TRAIN, DEV = 33, 20  # batches of 8 leave one example, which is less than there are processes
STAGES = (
    "{name: sharp, relaxation: sharp, c: [1.0, 0.2], share: 0.5, "
    "weights: {attention: 1.0, output: 1.0, hidden: 1.0, task: 0.5}}, "
    "{name: sign, relaxation: sign, share: 0.5, "
    "weights: {attention: 1.0, output: 1.0, hidden: 1.0, task: 0.5}}"
)
SETTINGS = (
    *("task=glue/sst2", "task.epochs=14", "task.learning_rate=3e-3", "logger=csv"),
    *("trainer.precision=64-true", "trainer.log_every_n_steps=1", "finetune.dropout=false"),
    *(f"schedule.stages=[{STAGES}]", "callbacks.checkpoints.every_n_steps=1000"),
)
TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")


def sentence(row: int) -> str:
    """Of 4 to 12 tokens, so that what a process gets differs in tokens, too."""
    return material.sentence(row).replace("was", "was" + " very" * (row * 5 % 9))


@dataclass(frozen=True)
class Place:
    """Where the runs of this module find their input and leave their results."""

    root: Path

    def arguments(self, name: str, *given: str) -> list[str]:
        places = (f"model.name={self.root / 'base'}", f"paths.data={self.root / 'data'}")
        own = (f"paths.cache={self.root / name / 'cache'}", f"run_dir={self.root / name}")
        return ["train", *overrides(*places, *own, *SETTINGS, *given)]

    def start(self, name: str, *given: str) -> Forked:
        return forked(*self.arguments(name, *given))

    def run(self, name: str, *given: str) -> Path:
        ended = spawned(*self.arguments(name, *given))
        assert ended.status == 0, ended.err
        return self.root / name


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("processes")
    for name, count in (("train", TRAIN), ("dev", DEV)):
        rows = [(sentence(row), 1 - row % 2) for row in range(count)]
        file = root / "data" / "glue" / "SST-2" / f"{name}.tsv"
        material.write_table(file, ("sentence", "label"), rows)
    material.base_bert(root / "base")
    return Place(root)


@pytest.fixture(scope="module")
def one(place: Place) -> Path:
    assert main(place.arguments("one")) == 0
    return place.root / "one"


@pytest.fixture(scope="module")
def two(place: Place) -> Path:
    return place.run("two", *TWO)


def scores(directory: Path) -> dict[str, float]:
    metrics = json.loads((directory / "metrics.json").read_text())
    return {name: value for name, value in metrics.items() if not name.startswith("time/")}


def losses(directory: Path) -> dict[str, list[float]]:
    """Every logged loss of all steps of teacher and student."""
    (file,) = (directory / "csv").rglob("metrics.csv")
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    names = [name for name in rows[0] if name.startswith(("finetune/", "train/"))]
    return {name: [float(row[name]) for row in rows if row[name]] for name in names}


def test_two_processes_learn_what_one_learns(one: Path, two: Path) -> None:
    assert scores(two) == pytest.approx(scores(one), rel=1e-5)
    assert scores(one)["score/teacher"] > 70
    assert scores(one)["score/student"] > 70  # of two classes: chance would agree, too


def test_the_loss_curve_is_that_of_one_process(one: Path, two: Path) -> None:
    curves = losses(one)
    names = {"finetune/task", *(f"train/{n}" for n in ("attention", "hidden", "output", "task"))}
    assert names <= set(curves)
    for name, curve in losses(two).items():
        assert curve == pytest.approx(curves[name], rel=1e-4, abs=1e-6), name
    assert curves["finetune/loss"][0] > 2 * curves["finetune/loss"][-1]


def test_the_weights_are_those_of_one_process(one: Path, two: Path) -> None:
    ours, theirs = (load_file(each / "student" / "model.safetensors") for each in (two, one))
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=1e-4, atol=1e-5, msg=name)
    start = torch.load(next((one / "checkpoints" / "student").glob("*")), weights_only=True)
    assert start["global_step"] > 0


@pytest.fixture(scope="module")
def sharded(place: Place) -> Path:
    given = ("trainer=fsdp", *TWO[1:], "trainer.precision=32-true")
    return place.run("sharded", *given, "callbacks.checkpoints.every_n_steps=90")


def test_sharded_weights_learn_what_whole_ones_learn(one: Path, sharded: Path) -> None:
    """The same curve in float32; a student's until a bit or a key differs."""
    whole = losses(one)
    for name, curve in losses(sharded).items():
        steps = 20 if name.startswith("finetune/") else 3
        assert curve[:steps] == pytest.approx(whole[name][:steps], rel=1e-3, abs=1e-5), name
    assert scores(sharded)["score/teacher"] > 70
    assert scores(sharded)["score/student"] > 70


def test_what_was_sharded_is_saved_whole(one: Path, sharded: Path) -> None:
    ours, theirs = (load_file(e / "student" / "model.safetensors") for e in (sharded, one))
    assert {n: w.shape for n, w in ours.items()} == {n: w.shape for n, w in theirs.items()}
    again = evaluate_run(sharded)
    assert again["student/accuracy"] == scores(sharded)["student/accuracy"]
    file = max((sharded / "checkpoints" / "student").glob("*.ckpt"))
    state = torch.load(file, weights_only=True)["state_dict"]
    assert {name.removeprefix("student."): w.shape for name, w in state.items()}.items() >= {
        name: weight.shape for name, weight in ours.items()
    }.items()


def shares(size: int, batch: int, world_size: int) -> list[list[list[int]]]:
    """Of each batch what each process gets."""
    examples = EncodedDataset({}, torch.zeros(size))
    parts = [
        ShuffledBatches(examples, batch, 7, seed=1, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    return [list(each) for each in zip(*parts, strict=True)]


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_processes_share_the_batches_of_one(world_size: int) -> None:
    (whole,) = zip(*shares(19, 8, 1), strict=True)
    for batch, parts in zip(whole, shares(19, 8, world_size), strict=True):
        if len(batch) >= world_size:
            assert sorted(each for part in parts for each in part) == sorted(batch)
            assert all(parts)
        else:  # nobody is idle, and everybody has the same
            assert parts == [batch] * world_size


def children(process: Forked) -> list[int]:
    """The further processes of a run; not those that read its data or compile for it."""
    tasks = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    numbers = [int(word) for word in tasks.read_text().split()]
    return [n for n in numbers if b"had.cli" in Path(f"/proc/{n}/cmdline").read_bytes()]


def once(condition: Callable[[], object], process: Forked) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.err.text
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("whom", ["launcher", "further"])
def test_sigterm_ends_all_processes_after_a_checkpoint(whom: str, place: Place) -> None:
    name = f"stopped-{whom}"
    long = ("task.epochs=2000", "callbacks.checkpoints.every_n_steps=5")
    folder = place.root / name / "checkpoints" / "teacher"
    with place.start(name, *TWO, *long) as process:
        once(lambda: list(folder.glob("step-*.ckpt")), process)
        (further,) = children(process)
        os.kill(process.pid if whom == "launcher" else further, signal.SIGTERM)
        ended = process.ended(within_s=60)  # when both have closed their output
    assert ended.returncode == 128 + signal.SIGTERM, ended.stderr
    assert "Traceback" not in ended.stderr
    assert f"resume={place.root / name} continues" in ended.stderr
    steps = [int(file.stem.removeprefix("step-")) for file in folder.glob("*.ckpt")]
    (states,) = {len(torch.load(f, weights_only=True)["random_state"]) for f in folder.glob("*")}
    assert states == 2
    assert max(steps) > 0
