"""Imports of large libraries in three quarters of the time."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lean_imports() -> Iterator[None]:
    """Imports without a search for garbage among the millions of objects that libraries define.

    There is hardly any, and each search takes longer than the one before. If it was within the
    context that torch was imported, what is there at its end is left out of later searches, too.
    """
    searching, known = gc.isenabled(), "torch" in sys.modules
    gc.disable()
    try:
        yield
    finally:
        if "torch" in sys.modules and not known:
            gc.freeze()
            atexit.register(gc.unfreeze)  # libraries complain of what is left when Python ends
        if searching:
            gc.enable()
