"""Points that run as jobs of their own, put somewhere by submitit or joblib."""

from __future__ import annotations

import json
import sys
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
from tests.sweeps.material import Sweep

METRIC = {"name": "score/drop", "goal": "minimize"}


def test_a_point_runs_as_a_job_of_submitit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On this machine, in a process of its own, as on a cluster."""
    pytest.importorskip("submitit")
    monkeypatch.setitem(LAUNCHERS, "slurm", partial(launchers.slurm, cluster="local"))
    sweep = Sweep(tmp_path)
    options = ("--launcher", "slurm", "--job", "timeout_min=5")
    assert main(sweep.arguments("binarization=ptq", "sparsity.n=2", *options)) == 0
    assert len(sweep.written()) == 1
    assert list(sweep.runs.glob("jobs/*.out"))


def test_a_bayesian_search_runs_on_joblib(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("optuna")
    sweep = Sweep(tmp_path)
    file = sweep.file("bayes", {"sparsity.n": {"values": [2, 4]}}, metric=METRIC, run_cap=4)
    caplog.set_level("INFO")
    further = ("binarization=ptq", "--points", "2", "--search-seed", "1", "--launcher", "joblib")
    assert main(sweep.arguments(file, *further)) == 0
    records = [json.loads(text) for text in sweep.written().values()]
    assert {record["n"] for record in records} == {2, 4}
    best = min(records, key=lambda record: record["score/drop"])
    (said,) = [line for line in caplog.messages if line.startswith("best: ")]
    assert said.startswith(
        f"best: score/drop = {best['score/drop']:.4g} with sparsity.n={best['n']}"
    )


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
