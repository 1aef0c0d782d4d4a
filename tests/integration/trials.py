"""Command lines with one wrong thing in them, and what must become of these."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.integration.command_line import called, overrides

FINISHED = "finished.ckpt"  # a checkpoint of an earlier run
PROGRESS = re.compile(r": \d+ rows$")  # what may be said before the complaint


class Trial:
    """One wrong thing in an otherwise sound command line.

    Attributes:
        place: an empty directory for what is wrong.
        run_dir: where the run would go.
    """

    def __init__(self, place: Path, base: Path, data: Path, read: Callable[[], tuple[str, str]]):
        self.place, self.read = place, read
        self.run_dir, self.cache = place / "run", place / "cache"
        self.sound = (
            *("task=glue/sst2", f"model.name={base}", f"paths.data={data}"),
            *(f"paths.cache={self.cache}", f"run_dir={self.run_dir}"),
        )
        self._base, self._data = base, data

    def refused(self, *wrong: str) -> str:
        """The one line that a command line is refused with."""
        (line,) = self.all_refused(*wrong)
        return line

    def all_refused(self, *wrong: str) -> list[str]:
        """The lines that a command line is refused with, without heading and numbers."""
        before = contents(self.run_dir)
        ended = called(self.read, "train", *overrides(*self.sound, *wrong))
        assert (ended.status, ended.out) == (2, ""), ended
        assert not any("Traceback" in line for line in ended.err)
        assert self.trained() == []
        assert contents(self.run_dir) == before
        lines = complaints(ended.err)
        if lines[0].endswith("in the configuration; nothing was started:"):
            return [line.partition(". ")[2] for line in lines[1:]]
        return lines

    def trained(self) -> list[Path]:
        """Whatever training leaves behind, without the results that were there before."""
        found = [*self.run_dir.rglob("*.ckpt"), *self.cache.rglob("*.safetensors")]
        return [path for path in found if path.name != FINISHED]

    def copy_of_data(self) -> Path:
        return shutil.copytree(self._data, self.place / "data")

    def copy_of_model(self) -> Path:
        return shutil.copytree(self._base, self.place / "model")


def complaints(lines: list[str]) -> list[str]:
    """What is said beside the progress."""
    return [line for line in lines if not PROGRESS.search(line)]


def contents(run_dir: Path) -> dict[str, bytes]:
    """The results in a run directory; the log and Hydra's own notes may change."""
    files = [path for path in run_dir.rglob("*") if path.is_file()]
    own = [path for path in files if ".hydra" not in path.parts and path.suffix != ".log"]
    return {str(path.relative_to(run_dir)): path.read_bytes() for path in own}
