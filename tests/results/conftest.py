"""A real run, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from had.runner import run
from tests.lightning.helpers import tiny


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run on the embedded digits, with CSV logs of every step."""
    directory = tmp_path_factory.mktemp("report")
    cfg = tiny(directory, "logger=csv", "trainer.log_every_n_steps=1")
    run(cfg)
    return Path(cfg.run_dir)
