"""Notebooks run from top to bottom, and nothing of a run is committed with them."""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import had
from had.finished_run import Run
from tests.forked import Forked

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]
LIMIT_S = 600  # of one, on a busy machine
SHARE = 0.1  # of the training that a cell asks for: the others do the same with any run

_OF_A_MACHINE = re.compile(r"(?<![\w.:/])/(?:home|root|Users|tmp|work|mnt|opt|var)/|[A-Z]:\\\\")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where notebooks find the teachers of each other."""
    return tmp_path_factory.mktemp("notebooks")


def _cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def test_there_are_notebooks() -> None:
    assert [name[:3] for name in NAMES] == [f"{number:02d}_" for number in range(1, 7)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_outputs_are_stripped(path: Path) -> None:
    for cell in _cells(path, "code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        assert "execution" not in cell["metadata"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_no_paths_of_a_machine(path: Path) -> None:
    assert _OF_A_MACHINE.findall(path.read_text()) == []


def test_the_look_for_paths_finds_some() -> None:
    assert _OF_A_MACHINE.search('"/home/someone/data"')
    assert not _OF_A_MACHINE.search("https://example.org/home/page or ../results/glue")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_no_library_code_hides_in_them(path: Path) -> None:
    code = "\n".join(line for cell in _cells(path, "code") for line in cell["source"])
    assert re.findall(r"^\s*(?:def|class) .*", code, re.MULTILINE) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_links_lead_somewhere(path: Path) -> None:
    text = "".join(line for cell in _cells(path, "markdown") for line in cell["source"])
    places = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [link for link in places if not (FOLDER / link).exists()] == []


def test_the_readme_points_to_all_of_them() -> None:
    text = (FOLDER.parent / "README.md").read_text()
    assert [path.name for path in NOTEBOOKS if f"notebooks/{path.name}" not in text] == []


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_runs_from_top_to_bottom(path: Path, cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("ipykernel", reason="pip install 'had[notebooks]'")
    place = tmp_path / "notebooks"  # what it writes goes there
    place.mkdir()
    (tmp_path / "results").symlink_to(FOLDER.parent / "results")
    drawing = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    own = {"IPYTHONDIR": str(tmp_path), "HAD_CACHE": str(cache), **drawing}
    code = ["".join(cell["source"]) for cell in _cells(path, "code")]
    with Forked(run_cells, code, directory=place, environment={**os.environ, **own}) as process:
        done = process.ended(within_s=LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_jupyter_finds_a_kernel_for_them(path: Path) -> None:
    pytest.importorskip("ipykernel", reason="pip install 'had[notebooks]'")
    from jupyter_client.kernelspec import get_kernel_spec

    name = json.loads(path.read_text())["metadata"]["kernelspec"]["name"]
    assert get_kernel_spec(name).language == "python"


def _shortened(train: Callable[..., Run], *overrides: str) -> Run:
    """A run of fewer steps, and otherwise the one that was asked for."""
    return train(*overrides, f"task.epochs={SHARE * had.compose(*overrides).task.epochs}")


def run_cells(code: list[str]) -> None:
    """Run cells as a notebook's kernel does, up to the first that fails, and draw their figures."""
    from IPython.core.interactiveshell import InteractiveShell

    had.train = partial(_shortened, had.train)
    shell = InteractiveShell.instance()
    importlib.import_module("matplotlib_inline.backend_inline")  # finds the shell, draws for it
    for cell in code:
        if not shell.run_cell(cell, store_history=True).success:
            sys.exit(1)
