"""Sweeps of tiny runs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.forked import Forked
from tests.integration.command_line import forked

TINY = (
    *("task=digits", "model.arguments.embed_dim=16", "model.arguments.depth=2"),
    *("model.arguments.patch_size=4", "task.epochs=2", "task.batch_size=128"),
    *("binarization.calibration_batches=2", "trainer=cpu", "logger=none", "hardware=none"),
)
GRID = ("seed=0,1", "sparsity.n=2,4")
AS_FILE = {"seed": {"values": [0, 1]}, "sparsity.n": {"values": [2, 4]}}
DEADLINE_S = 120


class Sweep:
    """A sweep in a place of its own."""

    def __init__(self, place: Path) -> None:
        self.records, self.runs = place / "records", place / "runs"
        self._cache = place / "cache"

    def arguments(self, *further: str) -> list[str]:
        return [
            *("sweep", *TINY, f"paths.cache={self._cache}"),
            *("--records", str(self.records), "--runs", str(self.runs), *further),
        ]

    def file(self, method: str, parameters: Mapping[str, Any], **further: Any) -> str:
        """A sweep file."""
        content = {"method": method, "parameters": parameters, **further}
        file = self.records.with_name("sweep.yaml")
        file.write_text(json.dumps(content))  # JSON is YAML
        return str(file)

    def start(self, *further: str) -> Forked:
        return forked(*self.arguments(*further))

    def written(self) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in self.records.glob("*.json")}

    def logs(self) -> str:
        return "".join(file.read_text() for file in sorted(self.runs.glob("*.log")))

    def wait_for(self, text: str, process: Forked) -> None:
        """Until a worker has said so."""
        until = time.monotonic() + DEADLINE_S
        while time.monotonic() < until and process.poll() is None:
            if text in self.logs():
                return
            time.sleep(0.02)
        pytest.fail(f"no {text!r} in {self.logs()}: {process.err.text}")
