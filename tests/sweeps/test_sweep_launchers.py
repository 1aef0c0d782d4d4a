"""Points that run as jobs of their own, put somewhere by submitit or joblib."""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from had.cli import main
from had.errors import HadError
from had.sweeps import launchers
from had.sweeps.claim import claimed
from had.sweeps.launchers import LAUNCHERS, Submission, SubmittedWorker
from had.sweeps.points import Point
from had.sweeps.pool import Layout
from had.sweeps.worker import Event, Job
from tests.sweeps.material import DEADLINE_S, Sweep

pytestmark = pytest.mark.slow


def test_a_bayesian_search_runs_as_jobs_of_submitit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On this machine, in a process of its own, as on a cluster."""
    pytest.importorskip("submitit")
    pytest.importorskip("optuna")
    monkeypatch.setitem(LAUNCHERS, "slurm", partial(launchers.slurm, cluster="local"))
    sweep = Sweep(tmp_path)
    metric = {"name": "score/drop", "goal": "minimize"}
    file = sweep.file("bayes", {"sparsity.n": {"values": [2, 4]}}, metric=metric, run_cap=4)
    options = ("--points", "1", "--launcher", "slurm", "--job", "timeout_min=5")
    caplog.set_level("INFO")
    assert main(sweep.arguments(file, "binarization=ptq", *options)) == 0
    (record,) = (json.loads(text) for text in sweep.written().values())
    assert record["n"] in (2, 4)
    (said,) = [line for line in caplog.messages if line.startswith("best: ")]
    best = f"best: score/drop = {record['score/drop']:.4g} with sparsity.n={record['n']} "
    assert said.startswith(best)
    assert list(sweep.runs.glob("jobs/*.out"))


def test_a_process_of_joblib_reports(tmp_path: Path) -> None:
    """That somebody else is at work on its point, which takes no time to find out."""
    pytest.importorskip("joblib")
    job = Job(OmegaConf.create({"run_dir": str(tmp_path)}), (), tmp_path / "x.json", False)
    point = Point((), job.cfg, (), "x", ("x",), None)
    layout = Layout(tmp_path, tmp_path)
    with claimed(tmp_path), LAUNCHERS["joblib"](layout, {}) as hire:
        worker = hire(0)
        worker.give(point, job)
        until = time.monotonic() + DEADLINE_S
        while not (reports := list(worker.reports())) and time.monotonic() < until:
            time.sleep(0.1)
    ((event, reason),) = reports
    assert event is Event.FAILED
    assert "is at work there" in reason


def test_two_jobs_do_not_work_in_one_run_directory(tmp_path: Path) -> None:
    job = Job(OmegaConf.create({"run_dir": str(tmp_path)}), (), tmp_path / "x.json", False)
    with claimed(tmp_path):
        event, reason = Submission(job)()
    assert event is Event.FAILED
    assert "is at work there" in reason


def test_a_job_that_runs_out_of_time_is_queued_again_as_it_was(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    job = Job(OmegaConf.create(), (), tmp_path, False)
    again = Submission(job).checkpoint()
    assert again.function == Submission(job)


class Gone:
    """A job that ended without a result."""

    def done(self) -> bool:
        return True

    def result(self) -> None:
        raise TimeoutError("killed")

    def cancel(self) -> None: ...


def test_a_job_that_ends_without_a_word_failed(tmp_path: Path) -> None:
    point = Point((), OmegaConf.create(), (), "x", ("x",), None)
    worker = SubmittedWorker(0, tmp_path, lambda submission: Gone(), lambda job: None)
    worker.give(point, Job(point.cfg, (), tmp_path, False))
    assert list(worker.reports()) == [(Event.FAILED, "its job ended: TimeoutError")]
    assert list(worker.reports()) == []


@pytest.mark.parametrize(
    ("name", "package", "advice"),
    [
        ("slurm", "submitit", r"had\[cluster\]"),
        ("joblib", "joblib.externals", "pip install joblib"),
    ],
)
def test_a_launcher_that_is_not_installed(
    name: str, package: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    layout = Layout(tmp_path, tmp_path)
    with pytest.raises(HadError, match=advice), LAUNCHERS[name](layout, {}):
        pass


def test_an_option_that_submitit_does_not_know(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    layout = Layout(tmp_path, tmp_path)
    options = {"partitoin": "gpu"}
    with pytest.raises(HadError, match="partitoin"), launchers.slurm(layout, options, "local"):
        pass


def test_a_worker_gets_its_share_of_the_processors_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path, tmp_path, workers=4, devices=("0", "1"))
    monkeypatch.setattr("os.cpu_count", lambda: 32)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert layout.environment(3)["OMP_NUM_THREADS"] == "8"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert layout.environment(3)["OMP_NUM_THREADS"] == "1"
    assert layout.environment(3)["CUDA_VISIBLE_DEVICES"] == "1"
