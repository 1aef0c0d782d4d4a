"""The attention KL against torch's own, and what it must not keep."""

from __future__ import annotations

import torch

from had.attention.backends import BACKENDS, AttentionCall
from had.attention.divergence import AttentionTarget, mean_over_real_rows, row_divergence


def test_row_divergence_is_the_kl_of_the_softmax_rows() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    ours = row_divergence(student, teacher, None)
    reference = torch.nn.functional.kl_div(
        student.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="none"
    ).sum(-1)
    torch.testing.assert_close(ours, reference)


def test_masked_keys_do_not_count_and_empty_rows_are_zero() -> None:
    torch.manual_seed(0)
    student = torch.randn(1, 1, 2, 5, requires_grad=True)
    teacher = torch.randn(1, 1, 2, 5)
    mask = torch.tensor([[[[True, True, False, True, False], [False] * 5]]])
    rows = row_divergence(student, teacher, mask)
    short = row_divergence(student[..., :1, [0, 1, 3]], teacher[..., :1, [0, 1, 3]], None)
    torch.testing.assert_close(rows[..., 0], short[..., 0])
    assert rows[0, 0, 1] == 0
    rows.sum().backward()
    assert torch.isfinite(student.grad).all()


def test_mean_is_over_heads_and_real_queries_only() -> None:
    rows = torch.tensor([[[1.0, 2.0, 100.0], [3.0, 4.0, 100.0]]])
    real = torch.tensor([True, True, False]).reshape(1, 1, 3, 1)
    assert mean_over_real_rows(rows, real).item() == 2.5


def test_identical_queries_and_keys_have_no_divergence() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 6, 8) for _ in range(3))
    call = AttentionCall(query=q, key=k, value=v, n=2, gain=0.5)
    _, divergence = BACKENDS["eager"].distil(call, AttentionTarget(q, k, 0.5), None)
    assert abs(divergence.item()) < 1e-6


def test_no_map_is_kept_for_backward() -> None:
    """Of a layer's forward only O(T D) tensors may survive: nothing as large as a map."""
    torch.manual_seed(0)
    length = 64
    q, k, v = (torch.randn(1, 2, length, 8, requires_grad=True) for _ in range(3))
    target = AttentionTarget(torch.randn(1, 2, length, 8), torch.randn(1, 2, length, 8), 0.3)
    kept: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call = AttentionCall(query=q, key=k, value=v, n=4, gain=0.3)
        output, divergence = BACKENDS["eager"].distil(call, target, None)
    assert kept == [] or max(kept) < length * length
    (output.sum() + divergence).backward()
    assert all(torch.isfinite(x.grad).all() for x in (q, k, v))
