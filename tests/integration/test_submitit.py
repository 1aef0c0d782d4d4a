"""Sweeps handed to submitit: to its local executor, and to a Slurm of one node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.command_line import Ended, spawned
from tests.integration.slurm import CannotStart, slurm_of_one_node
from tests.lightning.helpers import TINY

pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="had[cluster] is not installed")

pytestmark = pytest.mark.slow
PREEMPTED = "+callbacks.end={_target_: tests.lightning.helpers.Preemption, step: 5, phase: student}"


def sweep(root: Path, launcher: str, *given: str) -> list[str]:
    """The command of a sweep over two N, on few digits."""
    settings = {text.partition("=")[0]: text for text in (*TINY, "task.epochs=8", *given)}
    settings["sparsity.n"] = "sparsity.n=2,4"
    places = (f"hydra.sweep.dir={root / 'sweep'}", f"paths.cache={root / 'cache'}")
    return ["train", "-m", f"hydra/launcher={launcher}", *places, *settings.values()]


def check_both_points(root: Path, ended: Ended) -> None:
    """Both jobs of a sweep left a record, and a student that is no guess."""
    assert ended.status == 0, ended.err
    records = [json.loads(file.read_text()) for file in (root / "sweep").glob("*/record.json")]
    assert sorted(record["n"] for record in records) == [2, 4]
    assert all(record["student/accuracy"] > 0.3 for record in records)  # of ten digits


def test_a_preempted_sweep_on_this_machine_goes_on(tmp_path: Path) -> None:
    """Each job is stopped once, after some steps: submitit starts it again, and it continues."""
    ended = spawned(*sweep(tmp_path, "submitit_local", PREEMPTED))
    check_both_points(tmp_path, ended)
    for job in ("0", "1"):
        log = (tmp_path / "sweep" / job / "train.log").read_text()
        assert "signal 12: saving a checkpoint" in log
        assert log.count("student: continuing from") == 1


def test_a_sweep_on_slurm(tmp_path: Path) -> None:
    try:
        with slurm_of_one_node(tmp_path / "slurm") as variables:
            ended = spawned(*sweep(tmp_path, "submitit_slurm"), **variables)
    except CannotStart as reason:
        pytest.skip(str(reason))
    check_both_points(tmp_path, ended)
