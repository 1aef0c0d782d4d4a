"""Libraries whose remarks say nothing of a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

TALKATIVE = (
    *("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.rank_zero"),
    *("timm", "httpx"),
)
"""Loggers that are heard from warnings on; conf/hydra/default.yaml says so to the command line."""


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hear warnings alone from talkative libraries for a while."""
    before = {name: logging.getLogger(name).level for name in TALKATIVE}
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
