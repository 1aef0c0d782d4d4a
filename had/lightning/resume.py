"""Where a run continues: its own newest checkpoint, or one that the user names."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig

from had.errors import HadError
from had.lightning.callbacks.checkpoints import checkpoint_step, newest_valid
from had.lightning.phase import PHASES, Phase

log = logging.getLogger(__name__)


def check_resume(cfg: DictConfig) -> None:
    """Refuse, before anything is trained, a `resume` that there is nothing to continue from.

    Raises:
        HadError: a damaged or misplaced checkpoint, or a directory without any.
    """
    if cfg.resume in (None, "auto"):
        return
    place = Path(cfg.resume).expanduser()
    if not place.is_dir():
        _given_checkpoint(place, PHASES[0])
    elif not any(place.glob("checkpoints/*/step-*.ckpt")):
        raise HadError(
            f"resume={place}: no checkpoints/*/step-*.ckpt in it; give a run directory that was "
            "interrupted, or resume=null to start anew"
        )


def resume_point(phase: Phase) -> tuple[Path, int] | None:
    """The checkpoint to continue this phase from and its step, or None for a fresh start.

    Raises:
        HadError: the one that the user names is not there or damaged.
    """
    resume = phase.cfg.resume
    if resume is None:
        return None
    if resume == "auto":
        found = newest_valid(phase.checkpoints(phase.cfg.run_dir))
    elif (place := Path(resume).expanduser()).is_dir():
        found = newest_valid(phase.checkpoints(place))
    else:
        found = _given_checkpoint(place, phase.name)
    if found:
        log.info("%s: continuing from %s (step %d)", phase.name, *found)
    return found


def _given_checkpoint(file: Path, phase: str) -> tuple[Path, int] | None:
    """A checkpoint named by the user; it belongs to one phase, the other starts afresh."""
    if not file.is_file():
        raise HadError(
            f"resume={file}: no such checkpoint or run directory; resume=null starts anew"
        )
    try:
        step = checkpoint_step(file)
    except ValueError as error:
        raise HadError(f"resume={file}: {error}; resume=auto takes the newest valid one") from None
    if file.parent.name not in PHASES:
        raise HadError(
            f"resume={file}: its directory tells whose checkpoint it is, and must be called "
            + " or ".join(PHASES)
        )
    return (file, step) if file.parent.name == phase else None
