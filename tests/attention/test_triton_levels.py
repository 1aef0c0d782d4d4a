"""The training backend for signs at any length, against the oracle; see `training_cases`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from had.attention.backends import BACKENDS, AttentionCall
from had.attention.divergence import AttentionTarget, row_divergence
from had.attention.topn import ScaledN, TopN, topn_mask
from tests.attention.training_cases import (
    DEVICE,
    Case,
    on_device,
    padding,
    relative_error,
    run,
)

pytest.importorskip("triton")

LEVELS, REFERENCE = BACKENDS["triton_levels"], BACKENDS["reference"]

pytestmark = pytest.mark.usefixtures("kernels_run_here")


def causal(rows: int) -> Tensor:
    return torch.ones(rows, rows, dtype=torch.bool).tril()


def window(rows: int, width: int) -> Tensor:
    """Causal, and nothing from `width` tokens back on: leading key blocks are out of sight."""
    place = torch.arange(rows)
    return causal(rows) & (place[:, None] - place < width)


CASES = {
    "tiny": Case(rows=5, keys=7, n=3),
    "more than there are": Case(rows=5, keys=33, n=500),
    "fraction": Case(rows=16, keys=100, n=0.07),
    "share with a minimum": Case(rows=80, keys=80, n=ScaledN(0.2, 3), mask=causal(80)),
    "grouped": Case(batch=2, heads=4, groups=2, value_width=24, gain_shape=(4, 1, 1)),
    "odd widths": Case(rows=70, keys=70, width=20, value_width=12, mask=causal(70)),
    "gain of each row": Case(batch=2, rows=5, keys=33, gain_shape=(2, 2, 5, 1)),
    "several blocks": Case(rows=70, keys=197, n=30, gain_shape=(2, 1, 1)),
    "sliding window": Case(rows=200, keys=200, n=8, mask=window(200, 40)),
    "no rule": Case(batch=2, mask=torch.arange(2 * 33 * 65).view(2, 1, 33, 65) % 3 > 0),
    "a mask a head": Case(mask=torch.arange(2 * 33 * 65).view(1, 2, 33, 65) % 5 > 1),
    "padding, one row of nothing": Case(
        batch=3,
        keys=33,
        mask=padding(33, 10, 0, keys=33),
        real=padding(33, 10, 0, keys=33).transpose(2, 3),
    ),
    "exact keys": Case(rows=80, keys=80, n=20, mask=causal(80), recent=9),
    "exact keys alone": Case(rows=70, keys=70, n=3, mask=causal(70), recent=3),
    "exact keys in a window": Case(
        rows=150, keys=150, heads=4, n=0.3, mask=window(150, 40), recent=5
    ),
    "exact keys, padding": Case(batch=3, keys=33, mask=padding(33, 10, 0, keys=33), recent=4),
    "exact keys without a mask": Case(keys=100, recent=5, n=9),
    "bfloat16": Case(rows=70, keys=70, mask=causal(70), value_dtype=torch.bfloat16),
}


def check(case: Case, *, distil: bool) -> None:
    """Equal to the oracle, up to the rounding of weights to the values' type."""
    actual = run("triton_levels", case, distil=distil)
    expected = run("reference", case, distil=distil)
    assert actual.keys() == expected.keys()
    narrow = case.value_dtype != torch.float32
    for name, value in actual.items():
        bound = 4 * torch.finfo(case.value_dtype).eps if narrow else 1e-5
        if name.endswith("gain.grad"):
            bound *= 100 if not narrow else 10  # one sum over all rows: it cancels
        error = relative_error(value, expected[name])
        assert error < bound, f"{name}: relative error {error:.1e}, bound {bound:.1e}"


@pytest.mark.parametrize("name", CASES)
def test_attention_equals_the_oracle(name: str) -> None:
    check(CASES[name], distil=False)


@pytest.mark.parametrize("name", ["share with a minimum", "padding, one row of nothing"])
def test_distillation_equals_the_oracle(name: str) -> None:
    check(CASES[name], distil=True)


@pytest.mark.parametrize("n", [1, 5, 64, 100, 0.3])
@pytest.mark.parametrize("masked", [False, True])
def test_ties_keep_the_lowest_index(n: TopN, masked: bool) -> None:
    mask = torch.rand(1, 1, 33, 100, generator=torch.Generator().manual_seed(0)) > 0.4
    case = Case(keys=100, n=n, mask=mask if masked else None)
    # With one-hot values, outputs are the weights of the keys.
    identity = torch.eye(100, device=DEVICE).expand(case.batch, case.groups, -1, -1)
    call = case.call({**case.leaves, "value": identity, "gain": case.leaves["gain"] * 0.1})
    scores = call.query @ call.key.transpose(2, 3)
    assert torch.equal(LEVELS.attend(call) > 0, topn_mask(scores, n, call.mask))


@pytest.mark.parametrize("name", ["grouped", "several blocks"])
def test_gradients_repeat_bit_for_bit(name: str) -> None:
    first, second = (run("triton_levels", CASES[name], distil=False) for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_only_signs_without_a_bias_are_supported() -> None:
    case = Case(rows=5, keys=7, recent=1)
    call = case.call(case.leaves)
    assert LEVELS.supports(call)
    bias = torch.zeros(1, 2, 5, 7, device=DEVICE)
    refused = [{"bias": bias}, {"signs": False}, {"value": call.value.double()}]
    for change in refused:
        assert not LEVELS.supports(AttentionCall(**{**vars(call), **change}))


@pytest.mark.parametrize("backend", ["triton", "triton_levels", "eager", "reference"])
@pytest.mark.parametrize("stride", [3, 40])
def test_some_rows_may_stand_for_all(backend: str, stride: int) -> None:
    """Every stride-th row is compared; of a text shorter than that, its last one."""
    real = torch.arange(33)[None, None, :, None] < 20
    case = Case(keys=33, mask=causal(33), real=real)
    target = replace(case.target, stride=stride)
    call = case.call(case.leaves)
    output, divergence = BACKENDS[backend].distil(call, target, case._on_device(real))
    whole, _ = REFERENCE.distil(call, case.target, None)
    torch.testing.assert_close(output, whole)
    rows = [2, 5, 8, 11, 14, 17] if stride == 3 else []
    expected = _rows_divergence(call, case.target)[:, :, rows]
    torch.testing.assert_close(
        divergence, expected.mean() if rows else torch.zeros_like(divergence)
    )


def _rows_divergence(call: AttentionCall, target: AttentionTarget) -> Tensor:
    scores = call.gain * (call.query @ call.key.transpose(2, 3))
    return row_divergence(scores, target.scores(), call.mask)


@pytest.mark.gpu
@on_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("keys", "width"), [(500, 64), (2048, 64), (1500, 128), (4096, 32)])
def test_realistic_layers(keys: int, width: int, dtype: torch.dtype) -> None:
    heads = {"batch": 2, "heads": 4, "groups": 2, "gain_shape": (4, 1, 1)}
    sizes = {"rows": keys, "keys": keys, "width": width, "value_width": width}
    check(
        Case(n=ScaledN(1 / 16, 32), mask=causal(keys), value_dtype=dtype, **sizes, **heads),
        distil=False,
    )
