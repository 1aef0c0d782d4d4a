"""Training that went wrong ends, names what to change, and leaves no teacher behind."""

from __future__ import annotations

from math import inf, nan
from pathlib import Path

import pytest

from had.errors import HadError
from had.lightning.finite import finite
from had.runner import run
from tests.lightning.helpers import tiny


@pytest.mark.parametrize("loss", [inf, -inf, nan])
def test_a_loss_that_is_no_number_is_refused(loss: float) -> None:
    assert finite(0.5, 7, "student") == 0.5
    with pytest.raises(
        HadError, match=rf"step 7: the student's loss is {loss}.*schedule\.learning"
    ):
        finite(loss, 7, "student")


def test_a_run_ends_there_and_caches_no_teacher(tmp_path: Path) -> None:
    """Though no step of it is logged: the last one is looked at, too."""
    overrides = ("task.learning_rate=1e30", "trainer.gradient_clip_val=null")
    with pytest.raises(HadError, match=r"the teacher's loss is (nan|inf).*task\.learning_rate"):
        run(tiny(tmp_path, *overrides, "trainer.log_every_n_steps=1000"))
    assert not list((tmp_path / "cache").rglob("model.safetensors"))
    assert not (tmp_path / "run" / "metrics.json").exists()
