"""From the bytes of an image file to a square of RGB pixels."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from had.errors import HadError

_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")


class UnreadableImageError(HadError):
    """An image file that cannot be decoded: damaged, cut short, or no image at all."""


def decode(file: Path | IO[bytes] | Image.Image, side: int, interpolation: str) -> Tensor:
    """The centre square of an image, scaled.

    The shorter side is scaled to `side` and the longer one cropped to it, by the same filter and
    with the same rounding as the usual evaluation transforms of ImageNet, so that a centre crop of
    the result is a centre crop of theirs.

    Args:
        file: a path, an open file, or an image.
        side: pixels of the square's side.
        interpolation: a resampling filter of PIL, in lower case.

    Returns:
        uint8 (3, side, side).

    Raises:
        UnreadableImageError: the file is damaged or no image.
    """
    try:
        image = file if isinstance(file, Image.Image) else Image.open(file)
        image = to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # formats' readers raise whatever they stumble upon
        raise UnreadableImageError(f"{type(error).__name__}: {error}") from error
    pixels = np.array(_square(image, side, Image.Resampling[interpolation.upper()]))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any image in RGB: transparency shows white, 16-bit grey keeps its upper 8 bits."""
    if image.mode in _ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if image.mode in _DEEP:
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _square(image: Image.Image, side: int, resample: Image.Resampling) -> Image.Image:
    shorter = min(image.size)
    if shorter != side:
        width, height = (int(side * edge / shorter) for edge in image.size)
        image = image.resize((width, height), resample)
    left, top = (round((edge - side) / 2) for edge in image.size)
    return image.crop((left, top, left + side, top + side))
