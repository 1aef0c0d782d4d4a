"""Real sweeps: two workers, tiny models, killed and continued."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from had.cli import main
from tests.sweeps.material import AS_FILE, DEADLINE_S, GRID, TINY, Sweep

pytestmark = pytest.mark.slow


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)


def test_a_sweep_that_is_killed_half_way_continues(
    sweep: Sweep, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Four points of a file, two teachers; killed once the first is on record."""
    file = sweep.file("grid", AS_FILE, command=["${args_no_hyphens}", "logger=wandb"])
    with sweep.start(file, "--workers", "2") as process:
        sweep.wait_for("run directory:", process)
        while not sweep.written() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.ended()
    workers_gone(sweep)
    before = sweep.written()
    assert 1 <= len(before) < 4

    caplog.set_level("INFO")
    assert main(sweep.arguments(file)) == 0
    after = sweep.written()
    assert len(after) == 4
    assert {name: after[name] for name in before} == before
    said = [each.getMessage() for each in caplog.records]
    assert sum(line.startswith("done ") for line in said) == 4 - len(before)
    table = [line for line in capsys.readouterr().out.splitlines() if "digits" in line]
    assert [line.split()[3:5] for line in table] == [["2", "2"], ["4", "2"]]  # N, seeds
    records = [json.loads(text) for text in after.values()]
    assert {(r["seed"], r["n"]) for r in records} == {(s, n) for s in (0, 1) for n in (2, 4)}
    for seed in (0, 1):
        assert len({r["score/teacher"] for r in records if r["seed"] == seed}) == 1
    assert "task.epochs=2" in records[0]["overrides"]
    left = {path.name for path in sweep.runs.glob("*/*")}
    assert {"record.json", "config.yaml"} <= left
    assert not {"student", "checkpoints"} & left


def workers_gone(sweep: Sweep) -> None:
    """A killed sweep's workers end with it: nobody writes into their logs any more."""
    for _ in range(100):
        size = len(sweep.logs())
        time.sleep(0.3)
        if len(sweep.logs()) == size:
            return
    pytest.fail("the workers of a killed sweep go on")


def test_points_on_record_are_skipped(
    sweep: Sweep, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """One is written by hand under another name; the dry run knows it, and runs nothing."""
    (record,) = _record(sweep, "seed=0", "sparsity.n=2")
    caplog.set_level("INFO")
    assert main(sweep.arguments(*GRID, "--dry-run")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("on record" in line for line in lines) == 1
    assert sum("seed" in line for line in lines) == 4
    assert "4 points, 1 of them on record" in caplog.text
    assert not sweep.runs.exists()
    assert sweep.written() == record


def _record(sweep: Sweep, *point: str) -> list[dict[str, bytes]]:
    from had.sweeps.points import read_points

    (made,) = read_points([*TINY, *point])
    task, model, binarization, schedule, n, overrides, seed = made.identity
    told = {"task": task, "model": model, "binarization": binarization, "schedule": schedule}
    told |= {"n": n, "overrides": list(overrides), "seed": seed, "score/student": 1.0}
    sweep.records.mkdir()
    (sweep.records / "mine.json").write_text(json.dumps(told))
    return [sweep.written()]


def test_a_point_fails_the_next_one_runs_and_a_signal_leaves_its_checkpoint(sweep: Sweep) -> None:
    """A split that leaves nobody to learn from is only noticed when the data are read."""
    with sweep.start("task.eval_fraction=0.00001,0.2", "task.epochs=400") as process:
        sweep.wait_for("step 0: stage", process)
        process.send_signal(signal.SIGTERM)
        ended = process.ended(DEADLINE_S)
    assert ended.returncode == 128 + signal.SIGTERM
    failed, reported, last = ended.stderr.splitlines()[-3:]
    assert failed.startswith("failed  digits-vit_digits-had-paper-8-seed0-")
    for line in (failed, reported):
        assert "too few to hold out" in line
        assert str(sweep.runs / "worker0.log") in line
    assert "task.eval_fraction=1e-05" in reported
    assert last == "interrupted; the same command continues"
    assert sweep.written() == {}
    assert list(sweep.runs.glob("*/checkpoints/teacher/step-*.ckpt"))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (["--records", "x"], "nothing to run"),
        (["seed=0"], "--records"),
        (["seed=0", "--records", "x", "--workers", "0"], "must be 1 or more"),
    ],
)
def test_command_lines_that_are_refused(
    wrong: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["sweep", *wrong])
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err


def test_two_sweeps_do_not_share_a_folder(tmp_path: Path) -> None:
    from had.errors import HadError
    from had.sweeps.claim import claimed

    assert os.name == "posix"
    with claimed(tmp_path), pytest.raises(HadError, match="another sweep"), claimed(tmp_path):
        pass
    with claimed(tmp_path):
        pass
