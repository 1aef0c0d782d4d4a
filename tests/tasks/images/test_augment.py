"""Batches on the device: evaluation is the model's own transform, training random, repeatable."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as reference

from had.tasks.base import Batch
from had.tasks.images.augment import Augmentation
from had.tasks.images.decode import decode
from had.tasks.images.pixels import ImageBatches, stored_side
from tests.tasks.images.pictures import picture

PLAIN = ImageBatches(
    side=16,
    channels=3,
    mean=(0.5, 0.4, 0.3),
    std=(0.3, 0.2, 0.1),
    interpolation="bicubic",
    crop=0.8,
    classes=4,
    augmentation=Augmentation(),
)
EVERYTHING = Augmentation(
    scale=(0.3, 1.0), ratio=(0.8, 1.25), flip=0.5, randaugment=2, erase=0.5, mixup=0.8, cutmix=1.0
)


def batch(side: int = 20, count: int = 8) -> Batch:
    images = [decode(picture(number, 30, 26), side, "bicubic") for number in range(count)]
    return {"inputs": {"pixel_values": torch.stack(images)}, "labels": torch.arange(count) % 4}


def pixels(done: Batch) -> Tensor:
    return done["inputs"]["pixel_values"]


def training(**settings: object) -> ImageBatches:
    return replace(PLAIN, augmentation=Augmentation(**settings))


def test_evaluation_is_the_models_transform_pixel_by_pixel() -> None:
    """Scaled so that the crop keeps 80 % of the shorter side, cropped, normalised."""
    expected = []
    for number in range(8):
        resized = reference.resize(picture(number, 30, 26), 20, reference.InterpolationMode.BICUBIC)
        image = reference.to_tensor(reference.center_crop(resized, 16))
        expected.append(reference.normalize(image, PLAIN.mean, PLAIN.std))
    torch.testing.assert_close(pixels(PLAIN(batch())), torch.stack(expected))


def test_small_stored_images_are_enlarged_as_pil_would() -> None:
    """The device rounds to bytes as PIL does; the two may differ by one of 255 levels."""
    small = batch(side=8)
    found = pixels(PLAIN(small)) * torch.tensor(PLAIN.std)[:, None, None]
    levels = (found + torch.tensor(PLAIN.mean)[:, None, None]) * 255
    for image, level in zip(pixels(small), levels, strict=True):
        resized = reference.resize(
            reference.to_pil_image(image), 20, reference.InterpolationMode.BICUBIC
        )
        expected = reference.pil_to_tensor(reference.center_crop(resized, 16))
        assert (level - expected).abs().max() <= 1.001


@pytest.mark.parametrize(("side", "crop", "stored"), [(224, 0.9, 248), (224, 0.875, 256)])
def test_stored_squares_have_the_size_that_timm_scales_to(
    side: int, crop: float, stored: int
) -> None:
    assert stored_side(side, crop) == stored


def test_grey_models_get_the_luma() -> None:
    grey = replace(PLAIN, channels=1)
    found = pixels(
        grey({"inputs": {"pixel_values": batch()["inputs"]["pixel_values"]}, "labels": 0})
    )
    assert found.shape == (8, 1, 16, 16)
    one = batch()["inputs"]["pixel_values"][3, :, 9, 9].float() / 255
    luma = 0.299 * one[0] + 0.587 * one[1] + 0.114 * one[2]
    assert found[3, 0, 7, 7].item() == pytest.approx(float((luma - 0.4) / 0.2), abs=1e-5)


def test_without_any_change_training_sees_the_whole_image() -> None:
    seen = pixels(PLAIN(batch(side=16), draw=1))
    torch.testing.assert_close(seen, pixels(replace(PLAIN, crop=1.0)(batch(side=16))))


def test_the_same_draw_gives_the_same_batch_and_another_one_does_not() -> None:
    change = replace(PLAIN, augmentation=EVERYTHING)
    first, second, other = (change(batch(), draw) for draw in (5, 5, 6))
    assert torch.equal(pixels(first), pixels(second))
    assert torch.equal(first["labels"], second["labels"])
    assert not torch.equal(pixels(first), pixels(other))


def test_drawing_leaves_the_other_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    replace(PLAIN, augmentation=EVERYTHING)(batch(), draw=5)
    assert torch.equal(torch.rand(2), expected)


def test_a_certain_flip_is_a_mirror() -> None:
    flipped = pixels(training(flip=1.0)(batch(side=16), draw=1))
    torch.testing.assert_close(flipped, pixels(PLAIN(batch(side=16), draw=1)).flip(-1))


def test_flips_are_drawn_for_every_image() -> None:
    plain = pixels(PLAIN(batch(side=16, count=64), draw=1))
    mixed = pixels(training(flip=0.5)(batch(side=16, count=64), draw=1))
    same = (mixed - plain).abs().flatten(1).amax(1) < 1e-4
    assert 16 <= int(same.sum()) <= 48


def test_a_crop_of_a_quarter_shows_a_quarter() -> None:
    """Of a ramp from 0 to 1, half a side spans half of the values, wherever it lies."""
    ramp = torch.arange(64).mul(4).to(torch.uint8).expand(32, 3, 64, 64)
    whole = replace(PLAIN, mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="bilinear")
    change = replace(whole, augmentation=Augmentation(scale=(0.25, 0.25), ratio=(1.0, 1.0)))
    seen = pixels(change({"inputs": {"pixel_values": ramp}, "labels": torch.zeros(32)}, draw=2))
    first, last = seen[:, 0, 0, 0], seen[:, 0, 0, -1]
    span = 0.5 * 256 / 255 * 15 / 16  # from the first pixel's centre to the last one's
    torch.testing.assert_close(last - first, torch.full((32,), span), atol=0.01, rtol=0)
    assert first.max() - first.min() > 0.3


def test_mixed_labels_are_shares_of_what_was_mixed() -> None:
    """Each image is mixed with its neighbour in the batch by the same share as its label."""
    done = training(mixup=0.8)(batch(side=16), draw=4)
    labels, plain = done["labels"], pixels(PLAIN(batch(side=16), draw=4))
    assert labels.shape == (8, 4)
    torch.testing.assert_close(labels.sum(1), torch.ones(8))
    share = labels[1, 1]
    torch.testing.assert_close(pixels(done), share * plain + (1 - share) * plain.roll(1, 0))


def test_cutmix_pastes_a_rectangle_of_the_other_image() -> None:
    done = training(cutmix=1.0)(batch(side=16), draw=1)
    plain = pixels(PLAIN(batch(side=16), draw=1))
    own = (pixels(done) == plain).all(1)
    other = (pixels(done) == plain.roll(1, 0)).all(1)
    assert (own | other).all()
    torch.testing.assert_close(done["labels"][1, 1], own[1].float().mean(), atol=0.01, rtol=0)


def test_erased_rectangles_have_the_mean_colour() -> None:
    erased = pixels(training(erase=1.0, groups=4)(batch(side=16), draw=1))
    plain = pixels(PLAIN(batch(side=16), draw=1))
    gone = (erased != plain).any(1)
    assert all(0 < int(each.sum()) < 256 for each in gone)
    assert (erased.permute(0, 2, 3, 1)[gone] == 0).all()
    assert len({tuple(each.flatten().tolist()) for each in gone}) == 4  # a rectangle a group


def test_impossible_settings_are_named() -> None:
    wrong = Augmentation(scale=(0.0, 1.0), flip=1.5, mixup=-1, magnitude=31, groups=0)
    assert [line.split("=")[0] for line in wrong.problems()] == [
        *("scale", "flip", "mixup", "magnitude", "groups")
    ]
