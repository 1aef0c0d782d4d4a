"""ImageNet in its three forms: folders, archives and the Hub."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from had.errors import HadError
from had.tasks.base import Task, TaskData
from had.tasks.images import hub as image_hub
from had.tasks.images.decode import decode
from had.tasks.images.shards import ShardImages
from tests.tasks.images.pictures import PREPROCESSING, picture, write_folder

Make = Callable[..., Task]


def png(number: int) -> bytes:
    content = io.BytesIO()
    picture(number).save(content, "png")
    return content.getvalue()


def write_shard(file: Path, members: dict[str, bytes]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file


def make(make_task: Make, root: Path, *overrides: str) -> Task:
    given = (f"paths.cache={root / 'cache'}", "task.workers=0", *overrides)
    return make_task("imagenet", *given, data=root)


def shown(data: TaskData, rows: list[int]) -> torch.Tensor:
    return data.train.__getitems__(rows)["inputs"]["pixel_values"]


def expected(*numbers: int) -> torch.Tensor:
    return torch.stack([decode(picture(number), 20, "bicubic") for number in numbers])


def test_a_tree_of_folders(make_task: Make, tmp_path: Path) -> None:
    write_folder(tmp_path / "imagenet" / "train", {"n01": 2, "n02": 2})
    write_folder(tmp_path / "imagenet" / "val", {"n01": 1, "n02": 1})
    task = make(make_task, tmp_path)
    data = task.encode(PREPROCESSING)
    assert task.label_names == ["n01", "n02"]
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    assert torch.equal(shown(data, [3, 0]), expected(11, 0))
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_archives_with_their_classes_beside(make_task: Make, tmp_path: Path) -> None:
    """Class numbers are ordered as numbers: 9 before 10."""
    root = tmp_path / "imagenet"
    for shard in range(2):
        members = {}
        for number in range(2):
            members[f"{shard}{number}.png"] = png(2 * shard + number)
            members[f"{shard}{number}.cls"] = b"10\n" if number else b"9"
        write_shard(root / "train" / f"imagenet-{shard:04}.tar", members)
    write_shard(root / "val" / "imagenet-0000.tar", {"a.cls": b"10", "a.png": png(7)})
    task = make(make_task, tmp_path)
    data = task.encode(PREPROCESSING)
    assert task.label_names == ["9", "10"]
    assert data.train.labels.tolist() == [0, 1, 0, 1]
    assert data.evaluation[""].labels.tolist() == [1]
    assert torch.equal(shown(data, [3, 0]), expected(3, 0))


def test_one_archive_a_class(make_task: Make, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for index, wnid in enumerate(("n02", "n01")):
            members = {f"{wnid}_{number}.png": png(10 * index + number) for number in range(2)}
            write_shard(tmp_path / "imagenet" / split / f"{wnid}.tar", members)
    task = make(make_task, tmp_path)
    data = task.encode(PREPROCESSING)
    assert task.label_names == ["n01", "n02"]
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    assert torch.equal(shown(data, [0, 2]), expected(10, 0))


def test_archives_are_indexed_once_and_anew_when_they_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    shard = write_shard(tmp_path / "a.tar", {"x.png": png(1)})
    for _ in range(2):
        assert len(ShardImages.open_all([shard], tmp_path / "cache", "a")) == 1
    assert caplog.text.count("indexing") == 1
    write_shard(shard, {"x.png": png(1), "y.png": png(2)})
    assert len(ShardImages.open_all([shard], tmp_path / "cache", "a")) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no archive", "not a readable tar archive"), (b"\0" * 10240, "no images in its 1 archives")],
)
def test_bad_archives(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(HadError, match=message):
        ShardImages.open_all([tmp_path / "a.tar"], tmp_path / "cache", "a")


def test_a_damaged_image_in_an_archive_is_named_by_its_place(
    make_task: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for split in ("train", "val"):
        for wnid in ("n01", "n02"):
            members = {"good.png": png(1), "bad.png": b"damaged"}
            write_shard(tmp_path / "imagenet" / split / f"{wnid}.tar", members)
    data = make(make_task, tmp_path).encode(PREPROCESSING)
    assert data.train.__getitems__(range(4))["labels"].tolist() == [0, 1]
    assert "n01.tar, byte " in caplog.text


def test_out_of_reach_names_all_three_ways(make_task: Make, tmp_path: Path) -> None:
    with pytest.raises(HadError) as caught:
        make(make_task, tmp_path).read()
    for part in ("train/<class>/<image>", "archives *train*/*.tar", "ILSVRC/imagenet-1k"):
        assert part in str(caught.value)


def hub_data(folder: Path) -> Any:
    """Two images: one inside the data set, one in a file beside it."""
    datasets = pytest.importorskip("datasets", reason="the Hub's data sets need `datasets`")
    picture(2).save(folder / "beside.png")
    cells = [{"bytes": png(1), "path": None}, {"bytes": None, "path": str(folder / "beside.png")}]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["tench", "goldfish"])}
    )
    return datasets.Dataset.from_dict({"image": cells, "label": [1, 0]}, features=features)


def test_the_hub(make_task: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes keep the Hub's numbers, not the order of their names."""
    data = hub_data(tmp_path)
    monkeypatch.setattr(image_hub, "load_split", lambda source, subset, split: data)
    task = make(make_task, tmp_path)
    encoded = task.encode(PREPROCESSING)
    assert task.label_names == ["tench", "goldfish"]
    assert encoded.train.labels.tolist() == [1, 0]
    assert torch.equal(shown(encoded, [0, 1]), expected(1, 2))
    names = encoded.train.inputs["name"]
    assert len(np.unique(names)) == 2


def test_a_column_that_the_hub_lacks(
    make_task: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = hub_data(tmp_path)
    monkeypatch.setattr(image_hub, "load_split", lambda source, subset, split: data)
    with pytest.raises(HadError, match="no column img; there are: image, label"):
        make(make_task, tmp_path, "task.hub_image=img").read()
