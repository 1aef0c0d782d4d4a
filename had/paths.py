"""Where things lie: names that are paths, directories that may exist, the configuration's YAML."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

CONFIG_NAME = "train"  # the primary file of conf/

_FILES = (".ckpt", ".safetensors", ".pt", ".bin")


LOCAL_DIRECTORY = "local-dir:"  # in front of a directory, as timm writes it


def looks_like_path(name: str) -> bool:
    """Whether a name is meant as a path: an id on the Hub has one slash at most, inside."""
    written_so = name.startswith((os.sep, ".", "~")) or name.endswith((*_FILES, "/"))
    return written_so or name.count("/") > 1 or Path(name).exists()


def first_directory(*places: str) -> str:
    """The first place that is a directory, else the last one, which may be an id on the Hub."""
    return next((place for place in places if Path(place).expanduser().is_dir()), places[-1])


def hydra_config_path() -> str:
    """The configuration as Hydra names it: of the installed package, else of the source tree."""
    return "pkg://had.conf" if find_spec("had.conf") else str(config_directory())


def config_directory() -> Path:
    """The YAML files: inside the package when it is installed, beside it in a source tree."""
    package = Path(__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"
