"""A run that W&B's agent starts, pre-empts and starts again."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from tests.forked import Forked, python
from tests.integration.command_line import ROOT, variables
from tests.sweeps.agent import RUN_ID, SWEEPS, Server, kept, sweep_file
from tests.sweeps.material import DEADLINE_S, TINY

pytestmark = pytest.mark.slow
VALUES = dict(text.split("=", 1) for text in TINY if not text.startswith(("logger", "hardware")))


def start(server: Server, folder: Path) -> Forked:
    """What the agent starts, in a folder of its own."""
    cache = {"paths.cache": str(folder / "cache")}
    words = server.command(VALUES | cache | {"schedule.epochs": 8, "sparsity.n": 4})
    assert words[:2] == ["/usr/bin/env", "python"]
    return python(words[2:], directory=folder, environment=variables({"WANDB_MODE": "offline"}))


def logged(folder: Path) -> dict[str, float]:
    """The numbers kept for the server, the last one of each name."""
    found: dict[str, float] = {}
    for record in kept(folder):
        for item in record.history.item:
            value = json.loads(item.value_json)
            if isinstance(value, int | float):
                found[item.key or ".".join(item.nested_key)] = value
    return found


def test_a_pre_empted_run_continues_and_logs_what_the_sweeps_ask_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second process is told no more than the first: the run's id says where it was."""
    pytest.importorskip("wandb")
    file = sweep_file("glue_topn") | {"program": str(ROOT / "train.py")}
    server = Server(file, monkeypatch, tmp_path)

    with start(server, tmp_path) as first:
        while "stage 'soft'" not in first.err.text:
            assert first.poll() is None, first.err.text
            time.sleep(0.01)
        first.send_signal(signal.SIGTERM)
        assert first.ended(DEADLINE_S).returncode == 128 + signal.SIGTERM
    assert any(record.HasField("preempting") for record in kept(tmp_path))

    with start(server, tmp_path) as process:
        second = process.ended(DEADLINE_S)
    assert second.returncode == 0, second.stderr
    assert "student: continuing from" in second.stderr
    run = tmp_path / "outputs" / "sweep" / RUN_ID
    metrics = json.loads((run / "metrics.json").read_text())
    numbers = logged(tmp_path)
    assert {name: numbers[name] for name in metrics} == pytest.approx(metrics)
    asked_for = {sweep_file(path.stem)["metric"]["name"] for path in SWEEPS.glob("*.yaml")}
    assert asked_for == {"score/drop", "score/student"}
    assert asked_for <= numbers.keys()
    assert "hw/had_cam/onchip_energy_per_query_nj" in numbers
