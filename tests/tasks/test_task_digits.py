"""The embedded default task."""

from collections.abc import Callable

import torch
from sklearn.datasets import load_digits

from had.tasks.base import Task

Make = Callable[..., Task]


def test_every_digit_is_in_one_part(make_task: Make) -> None:
    task = make_task("digits")
    data = task.encode(None)
    labels = torch.cat([data.train.labels, data.evaluation[""].labels])
    images = torch.cat([part.inputs["pixel_values"] for part in (data.train, data.evaluation[""])])
    assert (len(data.train), len(data.evaluation[""])) == (1438, 359)
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert len(images.flatten(1).unique(dim=0)) == len(
        torch.tensor(load_digits().data).unique(dim=0)
    )
    assert task.num_outputs == 10


def test_shares_of_every_digit_are_kept(make_task: Make) -> None:
    held_out = make_task("digits").encode(None).evaluation[""].labels.bincount()
    assert held_out.min() >= 35
    assert held_out.max() <= 37


def test_pixels(make_task: Make) -> None:
    batch = make_task("digits").encode(None).train.__getitems__([0, 5, 9])
    pixels = batch["inputs"]["pixel_values"]
    assert pixels.shape == (3, 1, 8, 8)
    assert pixels.dtype == torch.float32
    assert pixels.min() == -1.0
    assert pixels.max() == 1.0


def test_the_split_depends_on_its_own_seed_alone(make_task: Make) -> None:
    torch.manual_seed(1)
    first = make_task("digits").encode(None).train.labels
    torch.manual_seed(2)
    assert torch.equal(make_task("digits").encode(None).train.labels, first)
    other = make_task("digits", "task.split_seed=1").encode(None).train.labels
    assert not torch.equal(other, first)
