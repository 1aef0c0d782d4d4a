"""What image models say of their input, whichever library they come from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImagePreprocessor:
    """How a model wants its images.

    Attributes:
        size: (channels, height, width).
        mean: of each channel, in the 0 .. 1 range.
        std: likewise.
        interpolation: resampling filter.
        crop: share of the shorter side that the centre crop keeps.
    """

    size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop: float
