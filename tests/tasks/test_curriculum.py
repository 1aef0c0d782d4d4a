"""A curriculum's order and rows, by hand."""

from collections.abc import Sequence

import pytest
import torch

from had.lightning.data import ShuffledBatches, training_loader
from had.tasks.curriculum import Curriculum, Part, Stage, StagedDataset, doubling

STAGES = [Stage(1, 2, 1), Stage(1, 3, 1), Stage(3, 8, 2)]


def staged(rows: int, replay: float, stages: Sequence[Stage] = STAGES) -> StagedDataset:
    """Rows of eight tokens: row r holds 10 r, 10 r + 1, ... and labels that are these negated."""
    tokens = 10 * torch.arange(rows)[:, None] + torch.arange(8)
    return StagedDataset({"input_ids": tokens}, -tokens, Curriculum.divided(rows, stages, replay))


def batches(data: StagedDataset, size: int, total: int, **more: float) -> list[list[int]]:
    return list(ShuffledBatches(data, size, total, seed=5, **more))


def stages_of(data: StagedDataset, order: list[list[int]]) -> list[int]:
    """The stage of each batch, in which all of its rows are."""
    found = [{data.order.part_of(row) for row in batch} for batch in order]
    assert all(len(each) == 1 for each in found)
    return [each.pop() for each in found]


def test_rows_are_divided_by_share_and_empty_stages_left_out() -> None:
    assert staged(10, 0).order.parts == (
        *(Part(0, 2, STAGES[0]), Part(2, 2, STAGES[1]), Part(4, 6, STAGES[2])),
    )
    few = Curriculum.divided(4, [Stage(0.5, 2), Stage(0.01, 4), Stage(0.5, 8)], 0.0)
    assert [(part.first, part.count) for part in few.parts] == [(0, 2), (2, 2)]
    assert [few.part_of(row) for row in range(4)] == [0, 0, 1, 1]


def test_lengths_double_up_to_the_longest() -> None:
    assert [stage.length for stage in doubling(128, 1000)] == [128, 256, 512, 1000]
    assert [stage.length for stage in doubling(128, 128)] == [128]
    assert [stage.length for stage in doubling(512, 256)] == [256]


def test_a_pass_takes_all_rows_stage_by_stage() -> None:
    data = staged(10, 0)
    first, second = (batches(data, 2, 10)[part] for part in (slice(5), slice(5, 10)))
    for order in (first, second):
        assert stages_of(data, order) == [0, 1, 2, 2, 2]
        assert sorted(row for batch in order for row in batch) == list(range(10))
    assert first != second


def test_a_skipped_share_is_left_out_and_the_rest_takes_all_batches() -> None:
    """Ten rows are 2, 2 and 6: behind three tenths are half of the second stage and the third."""
    data = staged(10, 0)
    assert stages_of(data, batches(data, 2, 5, skipped=0.3)) == [1, 2, 2, 2, 2]
    assert stages_of(data, batches(data, 2, 5, skipped=1.0)) == [2] * 5


def test_batches_that_divide_no_stage_evenly_are_of_one_stage_and_the_last_is_partial() -> None:
    """11 rows are 2, 2 and 7; batches of 3 have their middles at rows 1, 4, 6 and 9."""
    data = staged(11, 0)
    order = batches(data, 3, 4)
    assert [len(batch) for batch in order] == [3, 3, 3, 2]
    assert stages_of(data, order) == [0, 2, 2, 2]
    assert {*order[0]} == {0, 1}  # and one of them again
    assert len({row for batch in order[1:] for row in batch}) == 7


def test_a_pass_cut_short_goes_through_the_stages_all_the_same() -> None:
    data = staged(100, 0)
    assert stages_of(data, batches(data, 2, 5)) == [0, 1, 2, 2, 2]
    assert stages_of(data, batches(data, 2, 55))[50:] == [0, 1, 2, 2, 2]


def test_replayed_batches_are_of_earlier_stages_with_as_many_digits() -> None:
    stages = [Stage(1, 2, 1), Stage(1, 3, 1), Stage(1, 8, 2), Stage(1, 4, 2), Stage(1, 8, 2)]
    data = staged(500, 1.0, stages)
    found = stages_of(data, batches(data, 5, 100))
    allowed = [{0}, {0}, {0, 1}, {2}, {2, 3}]
    assert [{*found[20 * n : 20 * n + 20]} for n in range(5)] == allowed
    none, some = (staged(5000, share, stages) for share in (0.0, 0.3))
    pairs = zip(*(stages_of(data, batches(data, 5, 1000)) for data in (none, some)), strict=True)
    replayed = [a != b for a, b in pairs][200:]
    assert sum(replayed) / len(replayed) == pytest.approx(0.3, abs=0.05)


def test_replay_takes_rows_that_the_stage_has_left() -> None:
    """Of 40 rows of the first stage 20 are trained on; replay goes on with the others."""
    data = staged(80, 1.0, [Stage(1, 2), Stage(1, 4)])
    order = batches(data, 20, 4)
    assert stages_of(data, order) == [0, 0, 0, 0]
    assert sorted(row for batch in order[:2] for row in batch) == list(range(40))


@pytest.mark.parametrize("start", [1, 4, 7])
def test_a_resumed_run_goes_on_where_it_was(start: int) -> None:
    data = staged(11, 0.5)
    whole = batches(data, 3, 9)
    assert batches(data, 3, 9) == whole
    assert batches(data, 3, 9, start=start) == whole[start:]
    assert list(ShuffledBatches(data, 3, 9, seed=6)) != whole


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_every_batch(world_size: int) -> None:
    data = staged(31, 0.3)
    parts = [batches(data, 6, 6, rank=rank, world_size=world_size) for rank in range(world_size)]
    for whole, *shares in zip(batches(data, 6, 6), *parts, strict=True):
        if len(whole) >= world_size:
            assert sorted(row for share in shares for row in share) == sorted(whole)
        else:
            assert shares == [whole] * world_size


def test_rows_become_texts_of_their_length() -> None:
    """Four texts of two tokens, two of three with two tokens unused, one of eight."""
    data = staged(10, 0)
    for row, (count, length) in {1: (4, 2), 3: (2, 3), 9: (1, 8)}.items():
        batch = data[row]
        expected = 10 * row + torch.arange(count * length).view(count, length)
        assert torch.equal(batch["inputs"]["input_ids"], expected)
        assert torch.equal(batch["labels"], -expected)
    two = data.__getitems__([2, 3])["inputs"]["input_ids"]
    assert two.tolist() == [[20, 21, 22], [23, 24, 25], [30, 31, 32], [33, 34, 35]]


def test_a_loader_gives_as_many_tokens_at_every_stage() -> None:
    stages = [Stage(1, 2), Stage(1, 4), Stage(1, 8)]
    loader = training_loader(ShuffledBatches(staged(12, 0, stages), 2, 6, seed=0))
    shapes = [tuple(batch["inputs"]["input_ids"].shape) for batch in loader]
    assert shapes == [(8, 2)] * 2 + [(4, 4)] * 2 + [(2, 8)] * 2
