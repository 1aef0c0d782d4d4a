"""A full-precision model in, a Hamming-attention student or a recorded teacher out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import fields
from itertools import islice
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from had.attention.module import HammingAttention, hamming_layers
from had.attention.options import AttentionOptions
from had.attention.recorded import RecordedAttention
from had.errors import HadError
from had.models.family import family_of
from had.paths import config_directory

log = logging.getLogger(__name__)

Inputs = Mapping[str, Tensor]


def binarize(
    model: nn.Module,
    n: int | float = 30,
    binarization: str | Mapping[str, Any] = "had",
    calibration: Iterable[Inputs] | None = None,
    *,
    minimum: int = 1,
    backend: str = "auto",
) -> nn.Module:
    """Convert a transformers or timm model to Hamming attention, in place.

    Args:
        model: any model whose attention layers the adapters know.
        n: keys a row keeps: an integer >= 1, or a fraction in (0, 1] of the allowed keys.
        binarization: a name in `conf/binarization`, or a mapping with its keys: the fields of
            `had.attention.options.AttentionOptions` and `calibration_batches`.
        calibration: batches of model inputs (dicts of tensors on the model's device) from which the
            sigmas are taken; None leaves them at 1.0, with a warning where they matter.
        minimum: keys that a row keeps at least where n is a fraction and it may see as many.
        backend: "auto", or a name in `had.attention.backends.BACKENDS`.

    Returns:
        The same model, its attention one bit wide from now on (the `sign` relaxation).

    Raises:
        HadError: a layer cannot be converted (it is named), or the model is a student already.
        ValueError: n, the minimum, the scale or the clip is out of range.
    """
    if hamming_layers(model):
        raise HadError(f"{type(model).__name__} has Hamming attention already")
    recipe = _recipe(binarization)
    chosen = {
        field.name: recipe[field.name] for field in fields(AttentionOptions) if field.name in recipe
    }
    given = {"n": n, "minimum": minimum, "backend": backend}
    options = AttentionOptions(**{**chosen, **given})
    family_of(model).attach(model, lambda geometry: HammingAttention(geometry, options))
    if calibration is not None:
        calibrate(model, islice(calibration, int(recipe.get("calibration_batches", 100))))
    elif options.scale != "mean_abs":
        log.warning("no calibration batches: every sigma stays 1.0 until had.calibrate is called")
    return model


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable[Inputs]) -> None:
    """Set the sigmas of a student from full-precision passes over `batches`.

    Raises:
        HadError: there is no batch.
    """
    layers, family, was_training = hamming_layers(model), family_of(model), model.training
    count = 0
    model.eval()
    _set_calibrating(layers, True)
    try:
        for inputs in batches:
            family.forward(model, dict(inputs))
            count += 1
    finally:
        _set_calibrating(layers, False)
        model.train(was_training)
    if not count:
        raise HadError("calibration: no batches were given")
    for layer in layers:
        layer.query.settle()
        layer.key.settle()


def record_attention(model: nn.Module) -> nn.Module:
    """Make every attention layer of a teacher remember its queries and keys, in place."""
    family_of(model).attach(model, RecordedAttention)
    return model


def _set_calibrating(layers: list[HammingAttention], value: bool) -> None:
    for layer in layers:
        layer.calibrating = value


def _recipe(binarization: str | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(binarization, str):
        return binarization
    file = config_directory() / "binarization" / f"{binarization}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in file.parent.glob("*.yaml")))
        raise HadError(f"binarization={binarization!r} is unknown; there are {known}")
    recipe: Mapping[str, Any] = yaml.safe_load(file.read_text())
    return recipe
