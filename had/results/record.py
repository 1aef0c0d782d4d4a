"""The record of a run: what was asked for, on what it ran, and what came out."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import had

METRICS = "metrics.json"
COMMIT_VARIABLE = "HAD_COMMIT"
_PACKAGES = ("torch", "transformers", "timm", "pytorch-lightning", "hydra-core", "numpy", "triton")


def environment(seed: int) -> dict[str, Any]:
    """Versions, commit, device and seed, as plain values."""
    return {
        "had": had.__version__,
        "python": platform.python_version(),
        "packages": {name: version_of(name) for name in _PACKAGES},
        "commit": git_commit(),
        "device": device_name(),
        "seed": seed,
    }


def version_of(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """Commit of the code that runs.

    The environment's HAD_COMMIT, for copies that left their history behind; else that of the
    checkout around this package, with "-dirty" if it has local changes; None outside of one.
    """
    if stated := os.environ.get(COMMIT_VARIABLE):
        return stated
    try:
        # Fails where the package is merely installed within another project's checkout.
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()


def device_name() -> str:
    """The accelerator's name, or the processor's architecture and thread count."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"cpu {platform.machine()}, {torch.get_num_threads()} threads"


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2, default=str) + "\n")
    os.replace(partial, file)
