"""An interrupted and resumed run ends exactly as an uninterrupted one."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from had.errors import HadError
from had.lightning.callbacks.checkpoints import newest_valid
from had.lightning.fit import Interrupted
from had.runner import run
from tests.lightning.helpers import tiny

EVERY = "callbacks.checkpoints.every_n_steps=3"


def outcome(directory: Path, metrics: dict[str, float]) -> dict[str, object]:
    """Everything of a run that must be reproduced: all metrics but times, and every weight."""
    weights = load_file(directory / "run" / "student" / "model.safetensors")
    values = {k: v for k, v in metrics.items() if not k.startswith("time/")}
    return {**values, **{name: tensor.numpy().tobytes() for name, tensor in weights.items()}}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    directory = tmp_path_factory.mktemp("uninterrupted")
    return outcome(directory, run(tiny(directory, EVERY)))


def ended_by(kind: str, step: int, phase: str) -> str:
    return (
        f"+callbacks.end={{_target_: tests.lightning.helpers.{kind}, step: {step}, phase: {phase}}}"
    )


@pytest.mark.parametrize(("phase", "step"), [("teacher", 7), ("student", 4), ("student", 13)])
def test_a_power_cut_loses_nothing_that_matters(
    phase: str, step: int, tmp_path: Path, uninterrupted: dict[str, object]
) -> None:
    with pytest.raises(ConnectionAbortedError):
        run(tiny(tmp_path, EVERY, ended_by("PowerCut", step, phase)))
    assert newest_valid(tmp_path / "run" / "checkpoints" / phase)[1] <= step
    assert outcome(tmp_path, run(tiny(tmp_path, EVERY, "resume=auto"))) == uninterrupted


def test_sigterm_saves_after_the_step_in_progress(
    tmp_path: Path, uninterrupted: dict[str, object]
) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as stop:
        run(tiny(tmp_path, EVERY, ended_by("Signal", 5, "student")))
    assert stop.value.signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == handler
    assert newest_valid(tmp_path / "run" / "checkpoints" / "student")[1] in (5, 6)
    assert outcome(tmp_path, run(tiny(tmp_path, EVERY, "resume=auto"))) == uninterrupted


def test_a_truncated_checkpoint_is_skipped_for_the_one_before(
    tmp_path: Path, uninterrupted: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConnectionAbortedError):
        run(tiny(tmp_path, EVERY, ended_by("PowerCut", 13, "student")))
    newest, step = newest_valid(tmp_path / "run" / "checkpoints" / "student")
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    assert newest_valid(tmp_path / "run" / "checkpoints" / "student")[1] < step
    assert f"{newest} is damaged" in caplog.text
    assert outcome(tmp_path, run(tiny(tmp_path, EVERY, "resume=auto"))) == uninterrupted


def test_a_finished_run_is_not_trained_again(
    tmp_path: Path, uninterrupted: dict[str, object]
) -> None:
    run(tiny(tmp_path, EVERY))
    assert outcome(tmp_path, run(tiny(tmp_path, EVERY, "resume=auto"))) == uninterrupted


def test_resume_from_a_run_directory_continues_elsewhere(
    tmp_path: Path, uninterrupted: dict[str, object]
) -> None:
    with pytest.raises(ConnectionAbortedError):
        run(tiny(tmp_path, EVERY, ended_by("PowerCut", 13, "student")))
    elsewhere = tmp_path / "elsewhere"
    metrics = run(tiny(elsewhere, EVERY, f"resume={tmp_path / 'run'}"))
    assert outcome(elsewhere, metrics) == uninterrupted


def test_a_checkpoint_named_by_the_user_must_be_whole(tmp_path: Path) -> None:
    file = tmp_path / "step-0000003.ckpt"
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(HadError, match=r"step-0000003\.ckpt: damaged"):
        run(tiny(tmp_path, f"resume={file}"))


def test_a_checkpoint_of_another_schedule_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConnectionAbortedError):
        run(tiny(tmp_path, EVERY, ended_by("PowerCut", 13, "student")))
    with pytest.raises(HadError, match="another schedule"):
        run(tiny(tmp_path, EVERY, "resume=auto", "schedule.epochs=3"))


def test_checkpoints_hold_the_student_alone_and_load_as_plain_data(tmp_path: Path) -> None:
    run(tiny(tmp_path, EVERY))
    file, _ = newest_valid(tmp_path / "run" / "checkpoints" / "student")
    content = torch.load(file, weights_only=True)
    assert all(name.startswith("student.") for name in content["state_dict"])
    left = sorted(path.name for path in file.parent.iterdir())
    assert len(left) == 2, left
