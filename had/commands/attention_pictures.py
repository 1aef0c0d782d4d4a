"""Figures of attention over an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from had.errors import HadError

_INCHES = 2.2  # side of a panel
_FADED = 0.85  # how white patches become that the student does not look at
_HEAT = 0.65  # opacity of the weights over the image


@dataclass(frozen=True)
class Panels:
    """What a figure shows: a column for each title, a row for teacher, student and kept keys.

    Attributes:
        image: (3, side, side) in 0 .. 1.
        titles: of the columns.
        teacher: weights of the patches, (rows, columns) each.
        student: likewise.
        kept: 1 for the patches that the student's softmax sees, else 0; None for an empty panel.
        n: keys kept, of patches and the tokens before them together.
    """

    image: Tensor
    titles: Sequence[str]
    teacher: Sequence[Tensor]
    student: Sequence[Tensor]
    kept: Sequence[Tensor | None]
    n: int | float


def draw(panels: Panels, file: Path) -> Path:
    """Write the figure as PNG; the image itself stands on its left.

    Raises:
        HadError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # no pyplot: it would look for a display
    except ModuleNotFoundError as error:
        raise HadError("attention maps need matplotlib: pip install matplotlib") from error
    columns = len(panels.titles) + 1
    figure = Figure(figsize=(_INCHES * columns, _INCHES * 3.3), layout="constrained")
    axes = figure.subplots(3, columns)
    for each in axes.flat:
        each.set_axis_off()
    axes[0, 0].imshow(panels.image.permute(1, 2, 0))
    axes[0, 0].set_title("image")
    for column, title in enumerate(panels.titles):
        axes[0, column + 1].set_title(title)
        _heat(axes[0, column + 1], panels.image, panels.teacher[column])
        _heat(axes[1, column + 1], panels.image, panels.student[column])
        _kept(axes[2, column + 1], panels.image, panels.kept[column])
    rows = ("teacher", "student", f"kept keys, N = {panels.n}")
    for axis, name in zip(axes[:, 1], rows, strict=True):
        axis.text(-0.06, 0.5, name, rotation=90, va="center", ha="right", transform=axis.transAxes)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    return file


def _heat(axis: Any, image: Tensor, weights: Tensor) -> None:
    """Weights over a grey image; the colour scale ends at their maximum."""
    axis.imshow(image.mean(0), cmap="gray", vmin=0, vmax=1)
    axis.imshow(_enlarged(weights, image), cmap="inferno", alpha=_HEAT, vmin=0)


def _kept(axis: Any, image: Tensor, kept: Tensor | None) -> None:
    """The image where its patches are kept, nearly white elsewhere."""
    if kept is None:
        return
    shown = _enlarged(kept, image)
    faded = image + (1 - shown) * _FADED * (1 - image)
    axis.imshow(faded.permute(1, 2, 0))


def _enlarged(patches: Tensor, image: Tensor) -> Tensor:
    """(rows, columns) at the size of the image, every patch a square."""
    return F.interpolate(patches[None, None], image.shape[-2:], mode="nearest")[0, 0]
