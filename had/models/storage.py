"""Students on disk: a directory with config.json, model.safetensors and the preprocessing files."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from had.attention.module import HammingAttention, hamming_layers
from had.attention.options import AttentionOptions
from had.errors import HadError
from had.models.family import family, family_of

STUDENT = "student"  # its folder in a run directory
KEY = "had"  # the entry of config.json that makes a directory a student
LAYERS = "layers"  # in that entry, if the student was exported


def save(student: nn.Module, directory: str | Path, preprocessor: Any = None) -> Path:
    """Write a student so that `load_student` gives it back with Hamming attention on.

    Args:
        student: a model converted by `had.binarize`.
        directory: created if missing; files of the same names are replaced.
        preprocessor: written beside it if it has `save_pretrained`, as tokenizers do.

    Returns:
        The directory.

    Raises:
        HadError: the model is not a student.
    """
    layers = hamming_layers(student)
    if not layers:
        raise HadError(
            f"{type(student).__name__} has no Hamming attention; had.binarize makes it one"
        )
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    chosen = family_of(student)
    chosen.save(student, directory, {KEY: {"family": chosen.name, **asdict(layers[0].options)}})
    if hasattr(preprocessor, "save_pretrained"):
        preprocessor.save_pretrained(directory)
    return directory


def load_student(directory: str | Path, *, trust_remote_code: bool = False) -> nn.Module:
    """Read a student written by `save`: Hamming attention on, evaluation mode, on the CPU.

    Raises:
        HadError: the directory holds no student, or its files are damaged.
    """
    directory = Path(directory).expanduser()
    config = _read_config(directory)
    settings = dict(config[KEY])
    chosen = family(settings.pop("family"))
    options = AttentionOptions(**settings)
    file = directory / "model.safetensors"
    try:
        model, wrong = chosen.load(
            directory,
            config,
            lambda geometry: HammingAttention(geometry, options),
            trust_remote_code,
        )
    except (SafetensorError, OSError) as error:
        raise HadError(f"{file}: missing, damaged or cut short ({error})") from error
    except RuntimeError as error:
        raise HadError(f"{file}: does not fit its config.json: {error}") from error
    if wrong:
        raise HadError(f"{file}: does not fit its config.json: {', '.join(sorted(wrong)[:3])}")
    return model.eval()


def _read_config(directory: Path) -> dict[str, Any]:
    file = directory / "config.json"
    if not file.is_file():
        raise HadError(f"{directory}: not a student's directory, it has no config.json")
    try:
        config: dict[str, Any] = json.loads(file.read_text())
    except ValueError as error:
        raise HadError(f"{file}: not valid JSON ({error})") from error
    if KEY not in config:
        raise HadError(
            f"{file}: an ordinary model without Hamming attention; had.binarize converts it"
        )
    if LAYERS in config[KEY]:
        raise HadError(
            f"{file}: an exported student, which runs without this package: load it with "
            "transformers' Auto classes and trust_remote_code=True"
        )
    return config
