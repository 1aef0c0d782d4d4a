"""Small image files: every one a patch of colour that depends on its class and number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from had.models.timm import ImagePreprocessor

PREPROCESSING = ImagePreprocessor((3, 16, 16), (0.5, 0.4, 0.3), (0.3, 0.2, 0.1), "bicubic", 0.8)


def picture(number: int, width: int = 24, height: int = 20) -> Image.Image:
    """Noise around a colour, the same for the same number."""
    noise = np.random.RandomState(number).randint(0, 60, (height, width, 3))
    colour = np.array([(40 * number) % 190, (70 * number) % 190, (110 * number) % 190])
    return Image.fromarray((noise + colour).astype(np.uint8))


def write_folder(root: Path, classes: dict[str, int], suffix: str = ".png") -> Path:
    """`<root>/<class>/<number><suffix>`, so many of each class."""
    for index, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture(10 * index + number).save(root / name / f"{number}{suffix}")
    return root
