"""Logging in before a run: who is asked, and who is told what is missing."""

from __future__ import annotations

import sys

import pytest
from omegaconf import OmegaConf

from had.errors import HadError
from had.lightning.loggers import log_in

WANDB = {"_target_": "pytorch_lightning.loggers.WandbLogger"}


@pytest.fixture(autouse=True)
def without_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever imports it fails."""
    monkeypatch.setitem(sys.modules, "wandb", None)


@pytest.mark.parametrize(
    "loggers",
    [
        None,
        {"csv": {"_target_": "pytorch_lightning.loggers.CSVLogger"}},
        {"wandb": None},
        {"wandb": {**WANDB, "mode": "offline"}},
        {"wandb": {**WANDB, "mode": "disabled"}},
        {"wandb": {**WANDB, "offline": True}},
    ],
)
def test_who_sends_nothing_is_not_asked(loggers: dict[str, object] | None) -> None:
    log_in(OmegaConf.create({"logger": loggers}))


def test_an_online_logger_without_its_package_is_refused_by_name() -> None:
    cfg = OmegaConf.create({"logger": {"wandb": {**WANDB, "mode": "online"}}})
    with pytest.raises(HadError, match=r"logger=wandb: .*pip install wandb, or logger=csv"):
        log_in(cfg)
