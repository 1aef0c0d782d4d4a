"""A run that W&B's agent starts, pre-empts and starts again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.command_line import ROOT, variables
from tests.sweeps.agent import RUN_ID, SWEEPS, Server, kept, sweep_file
from tests.sweeps.material import DEADLINE_S, TINY

VALUES = dict(text.split("=", 1) for text in TINY if not text.startswith(("logger", "hardware")))


def start(server: Server, folder: Path) -> subprocess.Popen[str]:
    """What the agent starts, in a folder of its own; its `python` is this interpreter."""
    cache = {"paths.cache": str(folder / "cache")}
    words = server.command(VALUES | cache | {"schedule.epochs": 8, "sparsity.n": 4})
    assert words[:2] == ["/usr/bin/env", "python"]
    return subprocess.Popen(
        [sys.executable, *words[2:]],
        cwd=folder,
        env=variables({"WANDB_MODE": "offline"}),
        stderr=subprocess.PIPE,
        text=True,
    )


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

    first = start(server, tmp_path)
    assert first.stderr is not None
    said = ""
    while "stage 'soft'" not in said and (line := first.stderr.readline()):
        said += line
    assert "stage 'soft'" in said, said
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=DEADLINE_S)
    assert first.returncode == 128 + signal.SIGTERM
    assert any(record.HasField("preempting") for record in kept(tmp_path))

    second = start(server, tmp_path)
    _, said = second.communicate(timeout=DEADLINE_S)
    assert second.returncode == 0, said
    assert "student: continuing from" in said
    run = tmp_path / "outputs" / "sweep" / RUN_ID
    metrics = json.loads((run / "metrics.json").read_text())
    numbers = logged(tmp_path)
    assert {name: numbers[name] for name in metrics} == pytest.approx(metrics)
    asked_for = {sweep_file(path.stem)["metric"]["name"] for path in SWEEPS.glob("*.yaml")}
    assert asked_for == {"score/drop", "score/student"}
    assert asked_for <= numbers.keys()
    assert "hw/had_cam/onchip_energy_per_query_nj" in numbers
