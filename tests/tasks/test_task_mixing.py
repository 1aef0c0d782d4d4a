"""Mixed examples by hand: which part comes from whom, and that a plan hangs on seed and step."""

from __future__ import annotations

import pytest
import torch

from had.tasks.mixing import MixingPlan, cut_images, splice


def plan(chosen: list[bool], partner: list[int], place: list[float]) -> MixingPlan:
    return MixingPlan(torch.tensor(chosen), torch.tensor(partner), torch.tensor(place))


def test_the_end_is_the_partner_s_padding_included() -> None:
    """Lengths 5 and 4: the seam lies at 1, 2 or 3, here in the middle."""
    ids = torch.tensor([[1, 2, 3, 4, 5, 0], [11, 12, 13, 14, 0, 0], [21, 22, 23, 24, 25, 26]])
    mask = (ids > 0).long()
    mixed = splice(
        {"input_ids": ids, "attention_mask": mask},
        plan([True, True, False], [1, 2, 0], [0.5, 0.0, 0.9]),
        "right",
    )
    assert mixed["input_ids"].tolist() == [
        [1, 2, 13, 14, 0, 0],
        [11, 22, 23, 24, 25, 26],
        [21, 22, 23, 24, 25, 26],
    ]
    assert torch.equal(mixed["attention_mask"], (mixed["input_ids"] > 0).long())


def test_on_the_left_the_beginning_is_replaced() -> None:
    ids = torch.tensor([[0, 1, 2, 3, 4], [11, 12, 13, 14, 15]])
    inputs = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    mixed = splice(inputs, plan([True, True], [1, 0], [0.5, 0.5]), "left")
    assert mixed["input_ids"].tolist() == [[11, 12, 13, 3, 4], [0, 1, 2, 14, 15]]


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_token_of_each_is_always_left(side: str) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 9, (64,), generator=generator)
    columns = torch.arange(8) if side == "right" else torch.arange(8).flip(0)
    mask = columns < lengths[:, None]
    owner = torch.arange(64)[:, None].expand(64, 8)
    drawn = MixingPlan.draw(64, 1.0, seed=1, step=2)
    mixed = splice({"attention_mask": mask, "owner": owner}, drawn, side)
    for row in range(64):
        real = mixed["owner"][row][mixed["attention_mask"][row]].tolist()
        assert {row, int(drawn.partner[row])} == set(real)


def test_images_are_cut_along_a_row_and_labels_by_area() -> None:
    """Of four rows a seam at 0.3 leaves one: a quarter of the label."""
    images = torch.arange(2.0).reshape(2, 1, 1, 1).expand(2, 3, 4, 5)
    drawn = plan([True, False], [1, 0], [0.3, 0.5])
    mixed, labels = cut_images(images, torch.tensor([2, 0]), drawn, classes=3)
    assert mixed[0, :, :1].eq(0).all()
    assert mixed[0, :, 1:].eq(1).all()
    assert mixed[1].eq(1).all()
    assert labels.tolist() == [[0.75, 0, 0.25], [1, 0, 0]]


def test_labels_that_are_shares_already_are_mixed_likewise() -> None:
    images, labels = torch.zeros(2, 3, 4, 4), torch.tensor([[0.5, 0.5], [0.0, 1.0]])
    _, mixed = cut_images(images, labels, plan([True, True], [1, 0], [0.5, 0.75]), classes=2)
    assert mixed.tolist() == [[0.25, 0.75], [0.125, 0.875]]


def test_a_plan_depends_on_seed_and_step_alone() -> None:
    first, again = (MixingPlan.draw(32, 0.5, seed=3, step=7) for _ in range(2))
    other = MixingPlan.draw(32, 0.5, seed=3, step=8)
    assert torch.equal(first.partner, again.partner)
    assert torch.equal(first.chosen, again.chosen)
    assert not torch.equal(first.partner, other.partner)
    assert 0 < first.chosen.sum() < 32
    assert not MixingPlan.draw(32, 0.0, seed=3, step=7).chosen.any()
