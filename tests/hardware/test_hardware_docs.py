"""The page is what the model says, and the model stands on its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from had.errors import HadError
from had.hardware.docs import PAGE, draw_reduction, render


def test_the_generated_parts_of_the_page_are_current() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert render(page) == page, "run python -m had.hardware.docs"


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(HadError, match="no generated part 'weather'"):
        render("<!-- generated: weather -->\n<!-- end -->")


def test_the_figure_is_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw_reduction(tmp_path / "figure.svg")
    assert (tmp_path / "figure.svg").read_bytes().startswith(b"<?xml")


def test_importing_the_model_loads_neither_torch_nor_plotting() -> None:
    code = (
        "import sys, had.hardware, had.hardware.report, had.hardware.plots;"
        "heavy = {'torch', 'matplotlib', 'rich', 'hydra', 'transformers'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
