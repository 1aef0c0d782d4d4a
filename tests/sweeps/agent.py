"""W&B's own agent, without a server: it is told what a server would tell it."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

SWEEPS = Path(__file__).parents[2] / "sweeps"
RUN_ID = "abc123"

_FILE_HEADER, _BLOCK = 7, 32_768  # bytes
_HEADER = struct.Struct("<IHB")  # checksum, length, kind
_FULL, _LAST = 1, 4


class Server:
    """Hands runs of a sweep file to an agent that starts nothing.

    Args:
        file: the content of the sweep file.
        patch: to look over the agent's shoulder.
    """

    def __init__(self, file: Mapping[str, Any], patch: pytest.MonkeyPatch, folder: Path) -> None:
        from wandb import wandb_agent

        self._file, self._started = file, []
        patch.setenv("WANDB_DIR", str(folder))
        patch.setenv("WANDB_SWEEP_ID", "sweep")
        patch.setenv("WANDB_RUN_ID", RUN_ID)  # set by the agent; here to have it taken away again
        patch.setenv("WANDB_SWEEP_PARAM_PATH", "")
        patch.setattr(wandb_agent, "AgentProcess", self._process)
        self._agent = wandb_agent.Agent.__new__(wandb_agent.Agent)
        self._agent._sweep_command = list(file["command"])
        self._agent._run_processes = {}
        self._agent._in_jupyter = self._agent._forward_signals = False
        self._agent._function = None

    def command(self, values: Mapping[str, Any]) -> list[str]:
        """The words by which the agent starts a run with these values."""
        told = {key: {"value": value} for key, value in values.items()}
        self._agent._command_run({"run_id": RUN_ID, "args": told, "program": self._file["program"]})
        return self._started.pop()

    def _process(self, command: list[str], **others: Any) -> Any:
        self._started.append(command)
        return type("Process", (), {})()


def sweep_file(name: str) -> dict[str, Any]:
    """The content of a file under sweeps/."""
    content: dict[str, Any] = yaml.safe_load((SWEEPS / f"{name}.yaml").read_text())
    return content


def kept(folder: Path) -> Iterator[Any]:
    """What offline runs under a folder have kept for the server, oldest first."""
    from wandb.proto.wandb_internal_pb2 import Record

    for file in sorted(folder.rglob(f"run-{RUN_ID}.wandb")):
        for data in _journal(file.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            yield record


def _journal(content: bytes) -> Iterator[bytes]:
    """The entries of a file in LevelDB's log format, after W&B's own header.

    https://github.com/google/leveldb/blob/main/doc/log_format.md
    """
    at, entry = _FILE_HEADER, b""
    while at + _HEADER.size <= len(content):
        if _BLOCK - at % _BLOCK < _HEADER.size:  # filled up with zeros
            at += _BLOCK - at % _BLOCK
            continue
        _, length, kind = _HEADER.unpack_from(content, at)
        at += _HEADER.size + length
        entry += content[at - length : at]
        if kind in (_FULL, _LAST):
            yield entry
            entry = b""
