"""The fused training backend against the oracle: outputs, selection and every gradient.

Without a CUDA device the kernels run in Triton's interpreter, for these tests only.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from had.attention.backends import BACKENDS, AttentionCall, choose_backend
from had.attention.divergence import AttentionTarget
from had.attention.topn import ScaledN, topn_mask
from tests.attention.training_cases import (
    DEVICE,
    Case,
    on_device,
    padding,
    relative_error,
    run,
)

triton = pytest.importorskip("triton")

TRITON, REFERENCE = BACKENDS["triton"], BACKENDS["reference"]

pytestmark = [
    pytest.mark.usefixtures("kernels_run_here"),
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
]


def check(case: Case, *, distil: bool = True) -> None:
    """Equal to the oracle, up to one rounding of whatever is stored in a narrow type."""
    actual = run("triton", case, distil=distil)
    expected = run("reference", case, distil=distil)
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        # The interpreter truncates to bfloat16, a unit in the last place instead of half of one.
        bound = 1e-5 if value.dtype == torch.float32 else torch.finfo(value.dtype).eps
        if name.endswith(".grad") and value.dtype == torch.float32:
            bound = 1e-3 if name == "gain.grad" else 1e-4  # one sum over all rows: it cancels
        error = relative_error(value, expected[name])
        assert error < bound, f"{name}: relative error {error:.1e}, bound {bound:.1e}"


def kept_keys(case: Case) -> Tensor:
    """The kernel's selection (B, H, T, S): with one-hot values, outputs are weights of keys."""
    identity = torch.eye(case.keys, device=DEVICE).expand(case.batch, case.groups, -1, -1)
    leaves = {**case.leaves, "value": identity, "gain": case.leaves["gain"] * 0.1}
    return TRITON.attend(case.call(leaves)) > 0


def forbidding_bias(rows: int, keys: int) -> Tensor:
    """A position bias that rules some keys out by -inf."""
    bias = 0.5 * torch.randn(1, 2, rows, keys, generator=torch.Generator().manual_seed(1))
    return bias.masked_fill(bias > 0.7, -math.inf)


CASES = {
    "tiny signs": Case(rows=5, keys=7, n=3),
    "tiny floats": Case(rows=5, keys=7, n=3, signs=False),
    "one key": Case(n=1),
    "more than there are": Case(rows=5, keys=33, n=500, signs=False, rounded=False),
    "fraction": Case(rows=16, keys=100, n=0.07),
    "share with a minimum": Case(
        rows=40, keys=40, n=ScaledN(0.2, 3), mask=torch.ones(40, 40, dtype=torch.bool).tril()
    ),
    "grouped": Case(batch=2, heads=4, groups=2, value_width=24, gain_shape=(4, 1, 1)),
    "grouped floats": Case(heads=4, groups=1, width=24, signs=False, gain_shape=(1, 4, 1, 1)),
    "gain of each sample": Case(batch=2, rows=5, keys=33, gain_shape=(2, 2, 1, 1)),
    "several key blocks": Case(rows=20, keys=197, n=30, gain_shape=(2, 1, 1)),
    "several key blocks, floats": Case(rows=65, keys=150, groups=1, n=0.1, signs=False),
    "bfloat16": Case(value_dtype=torch.bfloat16),
    "float16, key blocks": Case(rows=17, keys=140, signs=False, value_dtype=torch.float16),
    "padding, one row of nothing": Case(
        batch=3,
        keys=33,
        mask=padding(33, 10, 0, keys=33),
        real=padding(33, 10, 0, keys=33).transpose(2, 3),
    ),
    "mask of rows": Case(
        batch=2, signs=False, mask=torch.arange(2 * 33 * 65).view(2, 1, 33, 65) % 3 > 0
    ),
    "causal": Case(rows=40, keys=40, mask=torch.ones(40, 40, dtype=torch.bool).tril()),
    "bias": Case(bias=forbidding_bias(33, 65)),
    "bias, key blocks": Case(keys=150, bias=forbidding_bias(33, 150), signs=False),
    "narrow bias": Case(bias=torch.randn(1, 1, 33, 65).bfloat16(), teacher_width=20),
}


@pytest.mark.parametrize("name", CASES)
def test_distillation_equals_the_oracle(name: str) -> None:
    check(CASES[name])


@pytest.mark.parametrize("name", ["tiny signs", "several key blocks, floats", "causal", "bias"])
def test_attention_equals_the_oracle(name: str) -> None:
    check(CASES[name], distil=False)


@pytest.mark.parametrize("n", [1, 5, 64, 100, 0.3])
@pytest.mark.parametrize("masked", [False, True])
def test_ties_keep_the_lowest_index(n: int | float, masked: bool) -> None:
    mask = torch.rand(1, 1, 33, 100, generator=torch.Generator().manual_seed(0)) > 0.4
    case = Case(keys=100, n=n, value_width=100, mask=mask if masked else None)
    expected = topn_mask(_scores(case), n, Case._on_device(case.mask))
    assert torch.equal(kept_keys(case), expected)


def test_ties_of_floats_keep_the_lowest_index() -> None:
    bias = torch.randint(-1, 2, (1, 1, 33, 100)).float()  # few distinct scores, bias and all
    case = Case(keys=100, n=20, value_width=100, bias=bias)
    expected = topn_mask(_scores(case) + Case._on_device(bias), 20)
    assert torch.equal(kept_keys(case), expected)


def test_signed_zeros_tie() -> None:
    case = Case(rows=4, keys=40, n=7, signs=False, value_width=40)
    case.leaves["query"] = torch.zeros_like(case.leaves["query"])
    assert torch.equal(kept_keys(case), (torch.arange(40, device=DEVICE) < 7).expand(1, 2, 4, 40))


def _scores(case: Case) -> Tensor:
    """Scores of the selection tests, with their smaller gain."""
    return 0.1 * case.leaves["gain"] * (case.leaves["query"] @ case.leaves["key"].transpose(2, 3))


@pytest.mark.parametrize("name", ["grouped", "several key blocks, floats"])
def test_gradients_repeat_bit_for_bit(name: str) -> None:
    first, second = (run("triton", CASES[name], distil=True) for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_values_alone_may_need_gradients() -> None:
    case = CASES["tiny signs"]
    leaves = {**case.leaves, "value": case.leaves["value"].detach().requires_grad_()}
    TRITON.attend(case.call(leaves)).sum().backward()
    assert leaves["value"].grad is not None


def test_only_what_the_kernels_can_do_is_supported() -> None:
    case = Case(rows=5, keys=7)
    call = case.call(case.leaves)
    assert choose_backend("auto", call) is TRITON
    bias = torch.zeros(1, 2, 5, 7, device=DEVICE, requires_grad=True)
    refused = [{"bias": bias}, {"query": call.query.double()}, {"value": call.value.double()}]
    refused += [{"key": call.key.expand(1, 2, 7, 16).repeat(1, 1, 200, 1)}]
    for change in refused:
        assert not TRITON.supports(AttentionCall(**{**vars(call), **change}))


def test_a_teacher_of_other_heads_goes_to_the_eager_backend() -> None:
    case = Case(rows=5, keys=7, heads=2, groups=2)
    wide = AttentionTarget(case.target.query.double(), case.target.key.double(), 0.4)
    call = case.call(case.leaves)
    actual, expected = (b.distil(call, wide, None)[1] for b in (TRITON, REFERENCE))
    torch.testing.assert_close(actual, expected)


def test_processor_without_interpreter_is_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    case = Case(rows=5, keys=7)
    leaves = {k: v.cpu() for k, v in case.leaves.items()}
    assert not TRITON.supports(AttentionCall(**leaves, n=3, signs=True))


@pytest.mark.gpu
@on_device
@pytest.mark.parametrize("signs", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("keys", "width"), [(77, 80), (128, 32), (197, 64), (512, 64), (1000, 32)])
def test_realistic_layers(keys: int, width: int, dtype: torch.dtype, signs: bool) -> None:
    if signs and keys > 512:
        pytest.skip("signs of long rows are left to another backend")
    mask = padding(keys, keys // 2, keys=keys)
    widths = {"width": width, "value_width": width, "teacher_width": width}
    heads = {"batch": 2, "heads": 4, "groups": 2, "gain_shape": (4, 1, 1)}
    special = {"mask": mask, "real": mask.transpose(2, 3), "value_dtype": dtype, "signs": signs}
    check(Case(rows=keys, keys=keys, n=30, **widths, **heads, **special))


@pytest.mark.gpu
@on_device
@pytest.mark.parametrize("keys", [128, 500])
def test_float_products_are_as_good_as_float32(keys: int) -> None:
    widths = {"width": 64, "value_width": 64, "teacher_width": 64}
    check(Case(rows=keys, keys=keys, n=1024, signs=False, rounded=False, **widths))
