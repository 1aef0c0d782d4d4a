"""Launchers of sweeps: what their files set, and what they refuse."""

from __future__ import annotations

import sys

import pytest
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from had.config.validate import validate

pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="had[cluster] is not installed")


def in_a_sweep(cfg: DictConfig) -> DictConfig:
    with open_dict(cfg):
        cfg.hydra.mode = RunMode.MULTIRUN
    return cfg


@pytest.mark.parametrize("launcher", ["submitit_local", "submitit_slurm"])
@pytest.mark.parametrize("resume", ["null", "auto"])
def test_jobs_that_are_started_again_may_resume(compose, launcher: str, resume: str) -> None:
    cfg = in_a_sweep(compose(f"hydra/launcher={launcher}", f"resume={resume}"))
    assert validate(cfg) == []


def test_slurm_is_asked_for_a_task_for_each_device(compose) -> None:
    given = ("trainer=ddp", "trainer.devices=4", "+trainer.num_nodes=2")
    cfg = in_a_sweep(compose("hydra/launcher=submitit_slurm", *given))
    assert validate(cfg) == []
    launcher = OmegaConf.to_container(cfg.hydra.launcher, resolve=True)
    assert (launcher["nodes"], launcher["tasks_per_node"]) == (2, 4)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("hydra/launcher=submitit_slurm", "trainer=ddp"), "trainer.devices=auto: Slurm is asked"),
        (("hydra/launcher=submitit_local", "trainer.devices=2"), "trainer.devices=2, "),
    ],
)
def test_devices_that_a_launcher_cannot_give(compose, overrides: tuple, sentence: str) -> None:
    (line,) = validate(in_a_sweep(compose(*overrides)))
    assert line.startswith(sentence)


@pytest.mark.parametrize("launcher", ["basic", "submitit_local"])
def test_one_checkpoint_is_not_for_all_jobs(compose, launcher: str, tmp_path) -> None:
    (line,) = validate(in_a_sweep(compose(f"hydra/launcher={launcher}", f"resume={tmp_path}")))
    assert line.startswith(f"resume={tmp_path}: all jobs of a sweep")


def test_a_launcher_without_a_sweep_is_refused(compose) -> None:
    (line,) = validate(compose("hydra/launcher=submitit_local"))
    assert line == "hydra/launcher: only the jobs of a sweep are launched; add -m"


def test_a_launcher_that_is_not_installed(compose, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "hydra_plugins.hydra_submitit_launcher.submitit_launcher"
    monkeypatch.setitem(sys.modules, name, None)
    (line,) = validate(in_a_sweep(compose("hydra/launcher=submitit_local")))
    assert line.endswith("pip install 'had[cluster]'")
