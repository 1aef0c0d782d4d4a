"""One run from Python: `had.train("task=glue/sst2", "sparsity.n=8")` does what `had train` does."""

from __future__ import annotations

from pathlib import Path

from had.config.command_line import request
from had.config.quiet import quiet_libraries
from had.finished_run import Run
from had.runner import run


def train(*overrides: str) -> Run:
    """Distil, as `had train` with the same overrides.

    Args:
        overrides: of the configuration, "task=glue/sst2", "sparsity.n=8", "run_dir=here", ...

    Raises:
        HadError: the configuration, the data or the weights cannot be used; nothing was trained.
        had.lightning.fit.Interrupted: a signal ended training, a checkpoint is on disk.
    """
    wanted = request(*overrides)
    with quiet_libraries():
        run(wanted.cfg, overrides=wanted.overrides)
    return Run(Path(wanted.cfg.run_dir))
