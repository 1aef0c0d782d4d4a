"""Image models of the transformers library."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoImageProcessor, PretrainedConfig

from had.errors import HadError
from had.models.images import ImagePreprocessor
from had.models.transformers import TransformersSource

_BYTE = 1 / 255
_NO_MEAN, _NO_STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # of a model that takes 0 .. 1 as it is


@dataclass(frozen=True)
class ProcessorSettings(ImagePreprocessor):
    """What an image processor of transformers does, for tasks to do it on the device.

    Attributes:
        processor: the processor itself.
    """

    processor: Any

    def save_pretrained(self, directory: Path) -> None:
        """Write the processor's own file, so that a student's directory is complete."""
        self.processor.save_pretrained(directory)


class TransformersImageSource(TransformersSource):
    """An image classifier that transformers' Auto classes can load, with its image processor."""

    def check(self) -> None:
        super().check()
        config = self._config()
        side, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
        if isinstance(side, int) and isinstance(patch, int) and side % patch:
            raise HadError(
                f"{self}: images of {side} pixels do not divide into patches of {patch}; make "
                f"model.arguments.image_size a multiple of {patch}"
            )

    def preprocessor(self) -> ProcessorSettings:
        """The processor's settings.

        Images keep their aspect ratio and lose their edges, also where the processor would squeeze
        them into a square.

        Raises:
            HadError: there is no processor, or it does what tasks on images cannot.
        """
        if self._is_architecture:
            raise HadError(
                f"{self}: an architecture, which has no image processor; give a model that has "
                "one, or an architecture of timm (model=timm model.pretrained=false)"
            )
        with self._explained("its image processor "):
            processor = AutoImageProcessor.from_pretrained(
                self.name, trust_remote_code=self.trust_remote_code
            )
        self._check_scaling(processor)
        side, crop = _side_and_crop(processor)
        size = _input_size(self._config(), side)
        normalises = processor.do_normalize
        return ProcessorSettings(
            size,
            tuple(processor.image_mean) if normalises else _NO_MEAN,
            tuple(processor.image_std) if normalises else _NO_STD,
            Image.Resampling(int(processor.resample)).name.lower(),
            crop,
            processor,
        )

    def _check_scaling(self, processor: Any) -> None:
        factor = processor.rescale_factor if processor.do_rescale else 1.0
        if not math.isclose(factor, _BYTE, rel_tol=1e-3):
            raise HadError(
                f"{self}: its image processor scales bytes by {factor:g}; tasks on images scale "
                "them by 1/255"
            )


def _side_and_crop(processor: Any) -> tuple[int, float]:
    """The side of the square that a processor gives, and its share of the scaled image's side."""
    scaled = _shorter(processor.size)
    if getattr(processor, "do_center_crop", None):
        cropped = _shorter(processor.crop_size)
        return cropped, min(1.0, cropped / scaled)
    return scaled, getattr(processor, "crop_pct", None) or 1.0


def _shorter(size: Any) -> int:
    """The shorter side of a size as processors write it: a number, both sides, or one of them."""
    if isinstance(size, int):
        return size
    named = {key: value for key, value in dict(size).items() if value}
    return int(min(named.get(key, math.inf) for key in ("shortest_edge", "height", "width")))


def _input_size(config: PretrainedConfig, side: int) -> tuple[int, int, int]:
    """(channels, height, width): the model's own, where its configuration fixes them."""
    given = getattr(config, "image_size", None) or side
    height, width = (given, given) if isinstance(given, int) else given
    return getattr(config, "num_channels", 3), int(height), int(width)
