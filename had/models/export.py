"""Students for others: a directory that transformers reads without this package.

It holds model.safetensors, config.json, the preprocessing files and `modeling_had.py`, the code of
the student's attention (`had.models.source_file`).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from had.attention.module import hamming_layers
from had.attention.options import AttentionOptions
from had.errors import HadError
from had.models.exporters import EXPORTERS, Target
from had.models.family import family_of
from had.models.source_file import MODULE, source_file
from had.models.storage import KEY, LAYERS, load_student
from had.models.transformers import quietly

_CONFIG = "config.json"
_KEPT = ("n", "minimum", "scale", "relaxation", "weights", "position_bias")
_MEANINGLESS = ("ste_clip", "backend")  # without training, and without this package


@dataclass(frozen=True)
class Export:
    """What was exported.

    Attributes:
        target: its classes, and what they need.
        settings: of its attention.
        layers: attention layers.
        parameters: number of weights.
    """

    target: Target
    settings: dict[str, Any]
    layers: int
    parameters: int


def export(student: Path, directory: Path, *, force: bool = False) -> Export:
    """Write a student so that transformers' Auto classes read it without this package.

    What was written is read back as a user would and compared with the student, before anything
    appears in the directory.

    Args:
        student: a directory that `had.save` has written.
        directory: where to; created if missing.
        force: whether it may hold files already; those of the same names are replaced.

    Raises:
        HadError: there is no student, it cannot be exported, or the directory is not empty.
    """
    check_target(student, directory, force=force)
    model = load_student(student)
    target, settings = EXPORTERS[family_of(model).name].target(model), settings_of(model)
    with tempfile.TemporaryDirectory(prefix="had-export-") as scratch:
        place = Path(scratch) / "student"
        place.mkdir()
        _write(model, target, settings, place)
        _copy_rest(student, place)
        _read_back(place, target, model)
        shutil.copytree(place, directory, dirs_exist_ok=True)
    layers = len(hamming_layers(model))
    return Export(target, settings, layers, sum(each.numel() for each in model.parameters()))


def check_target(student: Path, directory: Path, *, force: bool) -> None:
    """Refuse a directory that an export would spoil.

    Raises:
        HadError: it is a file, the student's own, or not empty and `force` is not set.
    """
    if directory.exists() and not directory.is_dir():
        raise HadError(f"{directory}: a file is in the way")
    if directory.resolve() == student.resolve():
        raise HadError(f"{directory}: the student itself lies there; give another directory")
    if not force and directory.is_dir() and any(directory.iterdir()):
        raise HadError(f"{directory}: not empty; --force replaces files of the same names")


def settings_of(model: nn.Module) -> dict[str, Any]:
    """The options of a student's attention that its results depend on.

    Raises:
        HadError: it has one that the exported code does not know.
    """
    options = hamming_layers(model)[0].options
    for field in fields(AttentionOptions):
        value = getattr(options, field.name)
        if field.name not in (*_KEPT, *_MEANINGLESS) and value != field.default:
            raise HadError(f"{field.name} = {value!r}: the exported code cannot express it")
    return {name: getattr(options, name) for name in _KEPT}


def _write(model: nn.Module, target: Target, settings: dict[str, Any], place: Path) -> None:
    """Weights, configuration and code."""
    with quietly():
        EXPORTERS[family_of(model).name].save(model, place)
    config = json.loads((place / _CONFIG).read_text())
    student, module = f"Had{target.base}", f"{MODULE}.Had"
    config |= {
        "model_type": f"had-{target.model_type}",
        "architectures": [student],
        "auto_map": {
            "AutoConfig": module + target.config,
            "AutoModel": module + target.base,
            target.auto: module + target.base,
        },
        KEY: {**settings, LAYERS: [asdict(each.geometry) for each in hamming_layers(model)]},
    }
    (place / _CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    (place / f"{MODULE}.py").write_text(source_file(target))


def _copy_rest(student: Path, place: Path) -> None:
    """Whatever else the student's directory holds: its tokenizer and the like."""
    for file in student.iterdir():
        if file.is_file() and file.suffix != ".safetensors" and not (place / file.name).exists():
            shutil.copyfile(file, place / file.name)


def _read_back(place: Path, target: Target, model: nn.Module) -> None:
    """Load what was written and compare all tensors.

    Raises:
        HadError: it is not the student.
    """
    auto = getattr(transformers, target.auto)
    with quietly():
        read, report = auto.from_pretrained(place, trust_remote_code=True, output_loading_info=True)
    wrong = {*report["missing_keys"], *report["unexpected_keys"]}
    theirs = {name.removeprefix("timm_model."): each for name, each in read.state_dict().items()}
    ours = model.state_dict()
    wrong |= theirs.keys() ^ ours.keys()
    both = ours.keys() & theirs.keys()
    wrong |= {name for name in both if not torch.equal(ours[name], theirs[name])}
    if wrong:
        first = ", ".join(sorted(wrong)[:3])
        raise HadError(f"{target.base}: the export does not give back {first}")
