"""Losses of unequal shares of a batch, averaged over processes, are those of the whole batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from had.attention.divergence import mean_over_real_rows
from had.lightning.shares import gathered, largest, of_whole_batch
from had.tasks.quality import LikelihoodQualityTask
from had.tasks.retrieval import RetrievalTask
from had.tasks.token_losses import IGNORED, token_cross_entropy
from tests.forked import Forked

LENGTHS = torch.tensor([1, 2, 7, 3, 5])  # real tokens of five examples; two and three a process


def whole_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values of rows (B, H, T) with those that are real (B, 1, T, 1), and labels (B, T)."""
    generator = torch.Generator().manual_seed(3)
    rows = torch.rand(5, 2, 7, generator=generator)
    real = (torch.arange(7) < LENGTHS[:, None])[:, None, :, None]
    labels = torch.randint(4, (5, 7), generator=generator).where(real[:, 0, :, 0], IGNORED)
    return rows, real, labels


def losses(weight: torch.Tensor, part: slice) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    rows, real, labels = (each[part] for each in whole_batch())
    logits = weight * rows.mean(1)[..., None] * torch.arange(4)
    values = {
        "attention": mean_over_real_rows((weight * rows).square(), real),
        "task": token_cross_entropy(logits, labels),
    }
    counts = {"attention": real.sum(), "task": RetrievalTask.output_count(None, labels)}
    return values, counts


def process(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    weight = torch.tensor(0.7, requires_grad=True)
    parts = of_whole_batch(*losses(weight, [slice(0, 2), slice(2, 5)][rank]))
    sum(parts.values()).backward()
    told = (largest(15 * rank, torch.device("cpu")), gathered(rank))
    torch.save((weight.grad, {n: p.detach() for n, p in parts.items()}, told), folder / f"{rank}")
    dist.destroy_process_group()


def test_the_average_over_processes_is_the_loss_of_the_batch(tmp_path: Path) -> None:
    with Forked(process, 0, tmp_path) as first, Forked(process, 1, tmp_path) as second:
        for each in (first.ended(), second.ended()):
            assert each.returncode == 0, each.stderr
    ours = [torch.load(tmp_path / str(rank)) for rank in range(2)]
    weight = torch.tensor(0.7, requires_grad=True)
    parts, _ = losses(weight, slice(0, 5))
    sum(parts.values()).backward()
    weight.requires_grad_(False)
    assert float(sum(grad for grad, _, _ in ours)) / 2 == pytest.approx(float(weight.grad))
    for name, whole in parts.items():
        assert float(sum(p[name] for _, p, _ in ours)) / 2 == pytest.approx(whole.item()), name
        plain = [losses(weight, part)[0][name].item() for part in (slice(0, 2), slice(2, 5))]
        assert sum(plain) / 2 != pytest.approx(whole.item(), rel=0.01)  # else nothing is shown
    assert [told for _, _, told in ours] == [(15, [0, 1])] * 2


def test_choices_are_counted_where_labels_are_tokens() -> None:
    assert LikelihoodQualityTask.loss_count(None, torch.full((3, 4, 9), IGNORED)) == 3
