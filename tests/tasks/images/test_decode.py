"""Decoding: the pixels of torchvision's transforms, and every mode that files come in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as reference

from had.tasks.images.decode import UnreadableImageError, decode
from tests.tasks.images.pictures import picture


@pytest.mark.parametrize("size", [(24, 20), (20, 24), (31, 20), (57, 33), (16, 16)])
def test_the_square_is_that_of_the_usual_evaluation_transform(size: tuple[int, int]) -> None:
    image = picture(1, *size)
    resized = reference.resize(image, 18, InterpolationMode.BICUBIC)
    for crop in (18, 14):  # a smaller centre crop can be taken of the stored square
        expected = reference.pil_to_tensor(reference.center_crop(resized, crop))
        edge = (18 - crop) // 2
        found = decode(image, 18, "bicubic")[:, edge : edge + crop, edge : edge + crop]
        assert torch.equal(found, expected)


def test_an_image_of_the_right_size_is_kept_bit_by_bit() -> None:
    image = picture(2, 16, 16)
    assert np.array_equal(decode(image, 16, "bicubic").permute(1, 2, 0), np.asarray(image))


def test_grey_becomes_equal_colours() -> None:
    grey = picture(3, 16, 16).convert("L")
    pixels = decode(grey, 16, "bilinear")
    assert pixels.shape == (3, 16, 16)
    assert all(np.array_equal(pixels[channel], np.asarray(grey)) for channel in range(3))


def test_sixteen_bit_grey_keeps_its_upper_bits(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint16).reshape(16, 16) * 256 + 17
    Image.fromarray(values).save(tmp_path / "deep.png")
    pixels = decode(tmp_path / "deep.png", 16, "bicubic")
    assert np.array_equal(pixels[0], values >> 8)


def test_cmyk_has_the_colours_of_its_inks(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "red.tif")
    assert decode(tmp_path / "red.tif", 16, "bicubic")[:, 3, 3].tolist() == [255, 0, 0]


def test_transparency_shows_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (16, 16), (200, 10, 10, 255))
    image.paste((0, 0, 0, 0), (0, 0, 8, 16))
    image.save(tmp_path / "half.png")
    pixels = decode(tmp_path / "half.png", 16, "bicubic")
    assert pixels[:, 5, 2].tolist() == [255, 255, 255]
    assert pixels[:, 5, 12].tolist() == [200, 10, 10]


def test_a_transparent_palette_shows_white(tmp_path: Path) -> None:
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, 9, 9, 200])
    image.paste(0, (0, 0, 8, 16))
    image.save(tmp_path / "palette.gif", transparency=0)
    pixels = decode(tmp_path / "palette.gif", 16, "bicubic")
    assert pixels[:, 5, 2].tolist() == [255, 255, 255]
    assert pixels[:, 5, 12].tolist() == [9, 9, 200]


def test_a_photo_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 16), "black")
    image.paste("white", (0, 0, 16, 8))  # white above
    about = Image.Exif()
    about[0x0112] = 3  # upside down
    image.save(tmp_path / "turned.png", exif=about)
    pixels = decode(tmp_path / "turned.png", 16, "bicubic")
    assert (pixels[0, 2, 2], pixels[0, 13, 2]) == (0, 255)


@pytest.mark.parametrize("content", [b"", b"not an image", "half"], ids=["empty", "text", "cut"])
def test_damage_is_one_kind_of_error(content: bytes | str, tmp_path: Path) -> None:
    file = tmp_path / "image.jpg"
    picture(4, 64, 64).save(file)
    file.write_bytes(file.read_bytes()[:700] if content == "half" else content)
    with pytest.raises(UnreadableImageError):
        decode(file, 16, "bicubic")
