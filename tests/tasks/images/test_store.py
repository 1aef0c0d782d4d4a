"""Decoded images: the same pixels from the cache and from the workers, and unreadable files."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from had.errors import HadError
from had.lightning.data import ShuffledBatches, training_loader
from had.tasks.images.decode import decode
from had.tasks.images.sources import FileImages, class_folders
from had.tasks.images.store import DECODERS, DecodedEachTime, Decoding, decode_once
from tests.tasks.images.pictures import picture, write_folder

LABELS = torch.tensor([0, 0, 0, 1, 1])


@pytest.fixture
def images(tmp_path: Path) -> FileImages:
    """Five files of two classes."""
    return class_folders(write_folder(tmp_path / "images", {"a": 3, "b": 2}))


@pytest.fixture
def how(tmp_path: Path) -> Decoding:
    return Decoding(16, "bicubic", tmp_path / "cache", strict=False, workers=0)


def damage(images: FileImages, *rows: int) -> None:
    for row in rows:
        images.files[row].write_bytes(b"damaged")


@pytest.mark.parametrize("name", DECODERS)
def test_batches_are_the_decoded_files(name: str, images: FileImages, how: Decoding) -> None:
    batch = DECODERS[name](images, LABELS, how).__getitems__([4, 0])
    expected = [decode(images.files[row], 16, "bicubic") for row in (4, 0)]
    assert torch.equal(batch["inputs"]["pixel_values"], torch.stack(expected))
    assert batch["labels"].tolist() == [1, 0]


def test_a_set_is_decoded_once(
    images: FileImages, how: Decoding, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first = decode_once(images, LABELS, how).inputs["pixel_values"]
    again = decode_once(images, LABELS, how).inputs["pixel_values"]
    assert caplog.text.count("decoding 5 images once") == 1
    assert torch.equal(first, again)


def test_a_changed_file_or_another_size_is_decoded_anew(images: FileImages, how: Decoding) -> None:
    decode_once(images, LABELS, how)
    assert decode_once(images, LABELS, replace(how, side=8)).inputs["pixel_values"].shape[-1] == 8
    picture(77, 40, 40).save(images.files[1])
    changed = decode_once(images, LABELS, how).inputs["pixel_values"]
    assert torch.equal(changed[1], decode(images.files[1], 16, "bicubic"))


def test_an_interrupted_decoding_leaves_nothing_to_be_mistaken(
    images: FileImages, how: Decoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Decoding, images: FileImages, row: int) -> torch.Tensor:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Decoding, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            decode_once(images, LABELS, how)
    assert len(decode_once(images, LABELS, how)) == 5


@pytest.mark.parametrize("name", DECODERS)
def test_an_unreadable_image_is_named_and_left_out(
    name: str, images: FileImages, how: Decoding, caplog: pytest.LogCaptureFixture
) -> None:
    damage(images, 1)
    data = DECODERS[name](images, LABELS, how)
    batch = data.__getitems__(range(len(data)))
    assert batch["labels"].tolist() == [0, 0, 1, 1]
    expected = [decode(images.files[row], 16, "bicubic") for row in (0, 2, 3, 4)]
    assert torch.equal(batch["inputs"]["pixel_values"], torch.stack(expected))
    assert f"1 of 5 images cannot be read: {images.files[1]}" in caplog.text


def test_unreadable_images_are_named_again_when_the_cache_is_used(
    images: FileImages, how: Decoding, caplog: pytest.LogCaptureFixture
) -> None:
    damage(images, 1, 4)
    for _ in range(2):
        caplog.clear()
        decode_once(images, LABELS, how)
        assert "2 of 5 images cannot be read" in caplog.text
    with pytest.raises(HadError, match=r"2 of 5 images cannot be read: .*1\.png"):
        decode_once(images, LABELS, replace(how, strict=True))


def test_strict_refuses_in_a_batch_as_well(images: FileImages, how: Decoding) -> None:
    damage(images, 1)
    data = DecodedEachTime(images, LABELS, replace(how, strict=True))
    with pytest.raises(HadError, match=r"1\.png"):
        data.__getitems__([0, 1])


@pytest.mark.parametrize("name", DECODERS)
def test_nothing_readable_is_an_error(name: str, images: FileImages, how: Decoding) -> None:
    damage(images, *range(5))
    with pytest.raises(HadError, match=r"nothing left|no image of a whole batch"):
        DECODERS[name](images, LABELS, how).__getitems__(range(5))


def test_a_full_disk_is_foreseen(images: FileImages, how: Decoding) -> None:
    with pytest.raises(HadError, match=r"GiB left; set paths\.cache elsewhere"):
        decode_once(images, LABELS, replace(how, side=10**8))
    assert not list(how.cache.rglob("*.npy"))


def test_workers_give_the_same_batches(images: FileImages, how: Decoding) -> None:
    alone, helped = (
        training_loader(ShuffledBatches(DecodedEachTime(images, LABELS, each), 2, total=5, seed=3))
        for each in (how, replace(how, workers=2))
    )
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one["inputs"]["pixel_values"], other["inputs"]["pixel_values"])
        assert torch.equal(one["labels"], other["labels"])


def test_columns_tell_other_files_apart(images: FileImages, how: Decoding) -> None:
    """They are what a teacher's fingerprint is taken of."""
    one = DecodedEachTime(images, LABELS, how).inputs["name"]
    other = DecodedEachTime(images.pick([1, 0, 2, 3, 4]), LABELS, how).inputs["name"]
    assert len(one.unique()) == 5
    assert other.tolist() == one[[1, 0, 2, 3, 4]].tolist()
