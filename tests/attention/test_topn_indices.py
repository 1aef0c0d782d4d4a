"""`topn_indices` against cases worked out by hand and against the oracle's selection."""

from __future__ import annotations

import pytest
import torch

from had.attention.select import topn_indices
from had.attention.topn import topn_mask

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LONG = [(64, 131072, 512), (2, 1000003, 5000), (4, 131072, 60000), (200, 4099, 100)]


def scores(rows: int, count: int) -> torch.Tensor:
    torch.manual_seed(count)
    return (torch.randn(rows, count, device=DEVICE) * 5.7 + 64).round().to(torch.uint8)


def check(x: torch.Tensor, n: int) -> None:
    kept = topn_mask(x[None, None].int(), n)[0, 0]
    assert torch.equal(topn_indices(x, n), kept.nonzero()[:, 1].view(len(x), n))


def test_lowest_index_first_among_equals() -> None:
    x = torch.tensor([[3, 1, 3, 3], [0, 0, 0, 0], [1, 255, 0, 254]], dtype=torch.uint8)
    wanted = torch.tensor([[0, 2], [0, 1], [1, 3]])
    assert torch.equal(topn_indices(x.to(DEVICE), 2).cpu(), wanted)


@pytest.mark.parametrize(("rows", "count", "n"), [(3, 1000, 10), (5, 17, 17), (1, 1, 1)])
def test_equals_the_oracle(rows: int, count: int, n: int) -> None:
    check(scores(rows, count), n)


def test_leading_dimensions_stay() -> None:
    assert topn_indices(scores(6, 40).view(2, 3, 40), 4).shape == (2, 3, 4)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="long rows are for the kernel: needs a CUDA device")
@pytest.mark.parametrize(("rows", "count", "n"), LONG)
def test_long_rows_equal_the_oracle(rows: int, count: int, n: int) -> None:
    check(scores(rows, count), n)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="the sample is the kernel's: needs a CUDA device")
@pytest.mark.parametrize("value", [0, 9, 255])
def test_rows_of_one_value(value: int) -> None:
    check(torch.full((7, 131072), value, dtype=torch.uint8, device=DEVICE), 512)


@pytest.mark.parametrize("n", [0, 5, -1])
def test_refuses_impossible_counts(n: int) -> None:
    with pytest.raises(ValueError, match=r"must be in 1 \.\. 4"):
        topn_indices(torch.zeros(1, 4, dtype=torch.uint8), n)


def test_refuses_other_types() -> None:
    with pytest.raises(ValueError, match="must be uint8"):
        topn_indices(torch.zeros(1, 4), 1)
