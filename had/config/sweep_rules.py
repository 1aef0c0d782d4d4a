"""What a sweep cannot do, whoever starts its jobs, or with one launcher."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from had.config.values import Rule, Values, at, is_sharded

BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
_SUBMITIT = "hydra_plugins.hydra_submitit_launcher.submitit_launcher"
_DISTRIBUTED = ("ddp", "fsdp", "deepspeed")


def own_checkpoints(values: Values) -> Iterator[str]:
    """A sweep's jobs cannot all continue the same run."""
    if (place := at(values, "resume")) not in (None, "auto"):
        yield (
            f"resume={place}: all jobs of a sweep (-m) would continue this one run; with "
            "resume=auto each continues in its own directory"
        )


def one_job_at_a_time(values: Values) -> Iterator[str]:
    """Resuming is for one run, or for jobs that a launcher starts again in their directories."""
    if at(values, "resume") == "auto":
        yield (
            "resume=auto: a sweep (-m) cannot be resumed in one process; resume its runs one by "
            "one, or use had sweep, which continues by itself"
        )


def one_device_a_job(values: Values) -> Iterator[str]:
    """The processes of one job would each walk through the whole sweep."""
    devices, strategy = at(values, "trainer.devices"), at(values, "trainer.strategy")
    sharded = is_sharded(strategy)
    strategy = at(strategy, "_target_") if isinstance(strategy, dict) else str(strategy)
    if _several(devices) or sharded or strategy.startswith(_DISTRIBUTED):
        yield (
            f"trainer.devices={devices}, trainer.strategy={strategy}: a job of a sweep (-m) on "
            "this machine runs on one device; start the jobs one by one, use "
            "hydra/launcher=submitit_slurm, or set trainer.devices=1 trainer.strategy=auto"
        )


def a_number_of_devices(values: Values) -> Iterator[str]:
    """Slurm starts a task for each device, before anybody has counted them."""
    devices = at(values, "trainer.devices")
    if not (isinstance(devices, int) and devices >= 1):
        yield (
            f"trainer.devices={devices}: Slurm is asked for a task for each device of a node, so "
            "it must be their number, as in trainer.devices=4"
        )


def _several(devices: Any) -> bool:
    if isinstance(devices, list):
        return len(devices) > 1
    return str(devices) == "-1" or (str(devices).isdecimal() and int(devices) > 1)


SWEEP_RULES: tuple[Rule, ...] = (own_checkpoints,)
LAUNCHER_RULES: dict[str, tuple[Rule, ...]] = {
    BASIC_LAUNCHER: (one_job_at_a_time, one_device_a_job),
    f"{_SUBMITIT}.LocalLauncher": (one_device_a_job,),
    f"{_SUBMITIT}.SlurmLauncher": (a_number_of_devices,),
}
"""What a sweep's launcher, by its `_target_`, cannot do."""
