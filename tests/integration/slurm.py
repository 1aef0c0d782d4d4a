"""A Slurm of one node, started in a directory of its own and gone after use."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "sinfo")
CONFIG = """
ClusterName=had
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={munge}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
_DEADLINE_S = 30


class CannotStart(Exception):
    """Slurm is not installed, or does not work here; the message says why."""


@contextmanager
def slurm_of_one_node(root: Path) -> Iterator[dict[str, str]]:
    """Variables that let Slurm's commands find the cluster, for as long as it runs.

    Raises:
        CannotStart: see there.
    """
    missing = [name for name in PROGRAMS if _program(name) is None]
    if missing:
        raise CannotStart(f"{', '.join(missing)} not installed (munge, slurm-wlm)")
    config = _configure(root)
    variables = {"SLURM_CONF": str(config)}
    with ExitStack() as stack:
        for command in _daemons(root):
            stack.enter_context(_running(command, root, variables))
        _wait_until_idle(root, variables)
        yield variables


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _configure(root: Path) -> Path:
    for folder in ("state", "spool"):
        (root / folder).mkdir(parents=True)
    key = root / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    config = root / "slurm.conf"
    config.write_text(
        CONFIG.format(
            root=root,
            host=socket.gethostname().partition(".")[0],
            user=getpass.getuser(),
            munge=root / "munge.socket",
            controller=_free_port(),
            node=_free_port(),
            cpus=os.cpu_count(),
        )
    )
    (root / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    return config


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _daemons(root: Path) -> list[list[str]]:
    munge = ["munged", "--foreground", "--force", f"--key-file={root / 'munge.key'}"]
    munge += [f"--{name}-file={root / 'munge'}.{name}" for name in ("pid", "seed", "log")]
    return [[*munge, f"--socket={root / 'munge.socket'}"], ["slurmctld", "-D"], ["slurmd", "-D"]]


@contextmanager
def _running(command: list[str], root: Path, variables: dict[str, str]) -> Iterator[None]:
    """A daemon in the foreground, terminated at the end."""
    program = _program(command[0])
    assert program is not None
    with (root / f"{command[0]}.out").open("wb") as output:
        process = subprocess.Popen(
            [program, *command[1:]],
            env={**os.environ, **variables},
            stdout=output,
            stderr=output,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_idle(root: Path, variables: dict[str, str]) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while time.monotonic() < deadline:
        done = subprocess.run(
            ["sinfo", "--noheader", "--format=%t"],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.stdout.strip() == "idle":
            return
        time.sleep(0.2)
    said = "".join(file.read_text() for file in sorted(root.glob("*.out")))
    raise CannotStart(f"Slurm does not start here: {(said or done.stderr)[-500:]}")
