"""A run that stops in the middle of a curriculum goes on with the texts it would have seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import DictConfig

from had.runner import run
from tests.lightning.helpers import configured
from tests.lightning.test_resume import EVERY, ended_by, outcome

# Fourteen batches of two lengths, the second from the eighth batch on.
PASSKEY = (
    *("task=retrieval/passkey", "task.context=256", "task.train_sequences=28", "task.batch_size=2"),
    *("task.eval_lengths=[]", "task.eval_sequences=4", "task.replay=0.5", "model=llama_tiny"),
    *("model.arguments.hidden_size=12", "model.arguments.num_hidden_layers=1"),
    *("model.arguments.intermediate_size=16", "binarization=had_recent", "sparsity=topn"),
    *(
        "sparsity.n=16",
        "binarization.calibration_batches=2",
        "trainer=cpu",
        "trainer.enable_progress_bar=false",
    ),
    *("logger=none", "hardware=none"),
)


def passkey(directory: Path, *more: str) -> DictConfig:
    return configured(directory, *PASSKEY, EVERY, *more)


@pytest.mark.parametrize(("phase", "step"), [("teacher", 5), ("student", 10)])
def test_a_curriculum_goes_on_where_it_was(phase: str, step: int, tmp_path: Path) -> None:
    whole = outcome(tmp_path / "whole", run(passkey(tmp_path / "whole")))
    with pytest.raises(ConnectionAbortedError):
        run(passkey(tmp_path / "cut", ended_by("PowerCut", step, phase)))
    assert outcome(tmp_path / "cut", run(passkey(tmp_path / "cut", "resume=auto"))) == whole


def test_another_order_makes_another_teacher(tmp_path: Path) -> None:
    for replay in (0.5, 0.5, 0.0):
        run(passkey(tmp_path, "schedule=none", f"task.replay={replay}"))
    assert len(list((tmp_path / "cache" / "teachers").iterdir())) == 2
