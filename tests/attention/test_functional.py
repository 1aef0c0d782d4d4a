"""The oracle against hand-computed cases, brute force, and invariants."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from had.attention import select
from had.attention.functional import (
    attend_to_scores,
    binarize,
    hamming_attention,
    masked_softmax,
    match_counts,
)
from had.attention.topn import ScaledN, keys_to_keep, recent_keys, topn_mask


def brute_force_topn(row: list[float], n: int, allowed: list[bool]) -> list[bool]:
    """Sort (score descending, index ascending), keep the first n allowed."""
    order = sorted((i for i, ok in enumerate(allowed) if ok), key=lambda i: (-row[i], i))
    return [i in order[:n] for i in range(len(row))]


def test_binarize_takes_zero_and_negative_zero_as_positive() -> None:
    x = torch.tensor([-2.0, -0.0, 0.0, 1e-30, 3.0])
    assert binarize(x).tolist() == [-1.0, 1.0, 1.0, 1.0, 1.0]


def test_match_counts_is_head_dim_minus_hamming_distance() -> None:
    query = torch.tensor([[1.0, -1.0, 2.0, -0.5]])
    key = torch.tensor([[3.0, -2.0, 0.1, -9.0], [-1.0, 1.0, -1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    assert match_counts(query, key).tolist() == [[4, 0, 2]]


def test_one_head_two_keys_by_hand() -> None:
    """d = 2, sigmas 2 and 3, scale 0.5: scores 0.5*6*(2m-2) = +6 for m=2 and 0 for m=1."""
    query = torch.tensor([[[[0.3, -0.1]]]])
    key = torch.tensor([[[[5.0, -1.0], [1.0, 1.0]]]])
    value = torch.tensor([[[[1.0], [10.0]]]])
    both = hamming_attention(
        query, key, value, n=2, sigma_query=2.0, sigma_key=3.0, scale=0.5
    ).item()
    weight = math.exp(6) / (math.exp(6) + 1)
    assert both == pytest.approx(weight * 1 + (1 - weight) * 10, rel=1e-6)
    one = hamming_attention(query, key, value, n=1, sigma_query=2.0, sigma_key=3.0, scale=0.5)
    assert one.item() == pytest.approx(1.0)


def test_default_scale_is_one_over_root_head_dim() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 5, 16) for _ in range(3))
    default = hamming_attention(q, k, v, n=3, sigma_query=1.0, sigma_key=1.0)
    explicit = hamming_attention(q, k, v, n=3, sigma_query=1.0, sigma_key=1.0, scale=0.25)
    assert torch.equal(default, explicit)


@pytest.mark.parametrize("implementation", [topn_mask, select.topn_mask])
@pytest.mark.parametrize("n", [1, 3, 7, 16, 50])
def test_selection_equals_brute_force_with_ties_and_masks(implementation, n: int) -> None:
    torch.manual_seed(n)
    scores = torch.randint(-2, 3, (2, 3, 4, 16)).float()
    mask = torch.rand(2, 1, 4, 16) > 0.4
    mask[0, 0, 0] = False
    kept = implementation(scores, n, mask)
    for index in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(4)).tolist():
        b, h, t = index
        expected = brute_force_topn(scores[b, h, t].tolist(), n, mask[b, 0, t].tolist())
        assert kept[b, h, t].tolist() == expected


@pytest.mark.parametrize("implementation", [topn_mask, select.topn_mask])
def test_equal_scores_keep_the_lowest_indices(implementation) -> None:
    kept = implementation(torch.zeros(1, 1, 1, 6), 2, None)
    assert kept.flatten().tolist() == [True, True, False, False, False, False]


@pytest.mark.parametrize("implementation", [topn_mask, select.topn_mask])
def test_a_bias_of_minus_infinity_forbids_a_key(implementation) -> None:
    scores = torch.tensor([[[[-math.inf, 1.0, -math.inf, 0.0]]]])
    assert implementation(scores, 3, None).flatten().tolist() == [False, True, False, True]


@pytest.mark.parametrize(
    ("fraction", "allowed", "kept"),
    [(0.5, 5, 3), (0.07, 100, 7), (0.1, 30, 3), (1.0, 9, 9), (0.01, 3, 1), (0.3, 0, 0)],
)
def test_fractions_round_up(fraction: float, allowed: int, kept: int) -> None:
    assert keys_to_keep(fraction, torch.tensor([allowed])).tolist() == [kept]


def test_a_share_with_a_minimum_by_hand() -> None:
    """A quarter of the keys, three at least: rows with fewer keys keep all, long ones grow."""
    allowed = torch.tensor([0, 1, 2, 3, 9, 12, 13, 100])
    assert keys_to_keep(ScaledN(0.25, 3), allowed).tolist() == [0, 1, 2, 3, 3, 3, 4, 25]


@pytest.mark.parametrize("implementation", [topn_mask, select.topn_mask])
def test_causal_rows_keep_by_what_they_see(implementation) -> None:
    scores = torch.randn(1, 2, 20, 20, generator=torch.Generator().manual_seed(0))
    causal = torch.ones(20, 20, dtype=torch.bool).tril()
    kept = implementation(scores, ScaledN(0.2, 2), causal)
    assert torch.equal(kept, topn_mask(scores, ScaledN(0.2, 2), causal))
    seen = range(1, 21)
    assert kept.sum(-1)[0, 0].tolist() == [min(s, max(2, -(-s // 5))) for s in seen]


@pytest.mark.parametrize(("share", "minimum"), [(0.0, 3), (1.5, 3), (8, 3), (0.5, 0), (0.5, 2.0)])
def test_an_impossible_share_or_minimum_is_refused(share: Any, minimum: Any) -> None:
    with pytest.raises(ValueError, match=r"n = |minimum = "):
        ScaledN(share, minimum)


@pytest.mark.parametrize("n", [0, -1, 0.0, 1.5, True, "3"])
def test_impossible_n_is_refused(n: object) -> None:
    with pytest.raises(ValueError, match="n = "):
        topn_mask(torch.zeros(1, 1, 1, 3), n)


def test_rows_without_keys_are_zero_and_have_zero_gradient() -> None:
    q = torch.randn(1, 1, 2, 4, requires_grad=True)
    k, v = (torch.randn(1, 1, 3, 4, requires_grad=True) for _ in range(2))
    mask = torch.tensor([[[[False] * 3, [True] * 3]]])
    output = hamming_attention(q, k, v, n=2, sigma_query=1.0, sigma_key=1.0, mask=mask)
    output.sum().backward()
    assert output[0, 0, 0].tolist() == [0.0] * 4
    assert torch.isfinite(q.grad).all()
    assert q.grad[0, 0, 0].abs().sum() == 0


def test_all_keys_and_magnitude_one_is_ordinary_attention_of_the_signs() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 9, 8) for _ in range(3))
    ours = hamming_attention(q, k, v, n=9, sigma_query=1.0, sigma_key=1.0)
    dense = torch.nn.functional.scaled_dot_product_attention(binarize(q), binarize(k), v)
    torch.testing.assert_close(ours, dense)


def test_grouped_query_attention_equals_repeated_keys() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 6, 5, 8), torch.randn(2, 2, 7, 8), torch.randn(2, 2, 7, 3)
    sigma = torch.rand(1, 2, 1, 1) + 0.5
    grouped = hamming_attention(q, k, v, n=3, sigma_query=0.7, sigma_key=sigma)
    repeated = hamming_attention(
        q,
        k.repeat_interleave(3, 1),
        v.repeat_interleave(3, 1),
        n=3,
        sigma_query=0.7,
        sigma_key=sigma.repeat_interleave(3, 1),
    )
    assert torch.equal(grouped, repeated)
    with pytest.raises(ValueError, match="6 query heads"):
        hamming_attention(q, k[:, :1].expand(2, 4, 7, 8), v, n=3, sigma_query=1.0, sigma_key=1.0)


def test_straight_through_gradient_is_that_of_the_unbinarized_operands() -> None:
    """With y = sigma b(x) and dy/dx = 1, q's gradient is that of dense attention taken at y."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 5, 8, dtype=torch.float64) for _ in range(3))
    sigma_q, sigma_k = 0.8, 1.3
    ours = [x.clone().requires_grad_() for x in (q, k, v)]
    out = hamming_attention(*ours, n=5, sigma_query=sigma_q, sigma_key=sigma_k)
    dense = [(sigma_q * binarize(q)), (sigma_k * binarize(k)), v.clone()]
    dense = [x.requires_grad_() for x in dense]
    reference = torch.nn.functional.scaled_dot_product_attention(*dense)
    out.square().sum().backward()
    reference.square().sum().backward()
    for a, b in zip(ours, dense, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_gradient_reaches_sigma_and_bias_exactly() -> None:
    torch.manual_seed(1)
    q, k, v = (torch.randn(1, 2, 4, 8, dtype=torch.float64) for _ in range(3))
    sigma = torch.tensor([0.5, 1.5], dtype=torch.float64).reshape(1, 2, 1, 1).requires_grad_()
    bias = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)

    def function(sigma: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return hamming_attention(q, k, v, n=4, sigma_query=sigma, sigma_key=0.9, bias=bias)

    assert torch.autograd.gradcheck(function, (sigma, bias))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_computed_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, 11, 16).to(dtype) for _ in range(3))
    half = hamming_attention(q, k, v, n=4, sigma_query=0.7, sigma_key=0.6)
    full = hamming_attention(q.float(), k.float(), v.float(), n=4, sigma_query=0.7, sigma_key=0.6)
    assert half.dtype == dtype
    assert torch.equal(half, full.to(dtype))


def test_autocast_does_not_lower_the_precision() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 9, 16) for _ in range(3))
    outside = hamming_attention(q, k, v, n=4, sigma_query=0.7, sigma_key=0.6)
    with torch.autocast("cpu", torch.bfloat16):
        inside = hamming_attention(q, k, v, n=4, sigma_query=0.7, sigma_key=0.6)
    assert torch.equal(outside, inside)


def test_scores_tie_exactly_whatever_the_sigmas() -> None:
    """Equal Hamming distances must tie in floating point, or the selection would be arbitrary."""
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 64, 48), torch.randn(1, 1, 512, 48)
    v = torch.eye(512).reshape(1, 1, 512, 512)
    kept = hamming_attention(q, k, v, n=17, sigma_query=0.7310, sigma_key=1.193) > 0
    expected = topn_mask(match_counts(q, k), 17)
    assert torch.equal(kept, expected)


def test_masked_softmax_of_huge_scores_is_finite() -> None:
    scores = torch.tensor([[1e30, -1e30, 3.0], [1.0, 1.0, 1.0]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert masked_softmax(scores, mask).tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


def test_the_last_keys_are_kept_and_exact() -> None:
    """One query on six keys: by hand, with units of 1 and a gain of 1."""
    query = torch.tensor([[[[0.5, -0.5]]]])
    key = torch.tensor(
        [[[[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [9.0, -9.0], [1.0, 1.0], [2.0, 0]]]]
    )
    value = torch.eye(6)[None, None]
    mask = torch.tensor([True, True, True, True, True, False])
    options = {"sigma_query": 1.0, "sigma_key": 1.0, "scale": 1.0, "mask": mask}
    found = hamming_attention(query, key, value, n=2, recent=1, **options)[0, 0, 0]
    # Key 4 is the last in sight, with an exact score of 0; of the others keys 1 and 3 have equal
    # bits (score 2), and there is room for one.
    weights = torch.tensor([-math.inf, 2.0, -math.inf, -math.inf, 0.0, -math.inf]).softmax(0)
    torch.testing.assert_close(found, weights)


def test_exact_keys_beyond_n_are_kept() -> None:
    allowed = torch.ones(1, 1, 1, 6, dtype=torch.bool)
    always = recent_keys(allowed, recent=4)
    assert always.squeeze().tolist() == [False, False, True, True, True, True]
    scores, value = torch.zeros(1, 1, 1, 6), torch.eye(6)[None, None]
    weights = attend_to_scores(scores, value, 2, allowed, always=always)
    assert weights.squeeze().tolist() == [0, 0, 0.25, 0.25, 0.25, 0.25]


def test_all_keys_exact_is_full_precision_attention() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 2, 9, 8, requires_grad=True) for _ in range(3))
    mask = torch.ones(9, 9, dtype=torch.bool).tril()
    options = {"sigma_query": 1.0, "sigma_key": 1.0, "mask": mask}
    ours = hamming_attention(query, key, value, n=9, recent=9, **options)
    dense = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(ours, dense)
    gradients = [torch.autograd.grad(x.square().sum(), [query, key]) for x in (ours, dense)]
    torch.testing.assert_close(*gradients)
