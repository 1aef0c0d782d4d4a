"""Decoding with exact recent keys: two parts of a row, merged, against the oracle for all of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from had.attention.backends import BACKENDS, PackedCall, choose_packed_backend
from had.attention.backends.base import Apart, ExactKeys
from had.attention.backends.merging import MergingBackend
from had.attention.bits import pack_signs, unpack_signs
from had.attention.functional import binarize
from had.attention.topn import ScaledN, TopN, keys_to_keep_of_part, topn_mask

RECENT = 4
HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)
needs_hopper = pytest.mark.skipif(not HOPPER, reason="needs a CUDA device of capability 9.0")
REFERENCE, EAGER = BACKENDS["reference"], BACKENDS["eager"]


@dataclass(frozen=True)
class Case:
    """A random step of decoding, of three sequences by default, as a cache hands it over."""

    batch: int = 3
    heads: int = 4
    groups: int = 2
    keys: int = 150
    width: int = 64
    value_width: int = 64
    n: TopN = 20
    recent: int = RECENT
    dtype: torch.dtype = torch.float32
    padding: tuple[int, ...] = ()  # forbidden first keys of each sequence
    holes: bool = False  # of forbidden keys, as from padding between turns
    equal: bool = False  # all keys, so that the lowest index decides
    gains: bool = False

    def call(self) -> PackedCall:
        torch.manual_seed(self.keys)
        query = torch.randn(self.batch, self.heads, 1, self.width)
        key = torch.randn(self.batch, self.groups, self.keys, self.width)
        if self.equal:
            key = key[:, :, :1].expand_as(key).contiguous()
        value = torch.randn(self.batch, self.groups, self.keys + 6, self.value_width)
        gain = 0.01 * (1 + torch.rand(1, self.heads, 1, 1)) if self.gains else 0.02
        return PackedCall(
            *(pack_signs(query), aligned(pack_signs(key)), value.to(self.dtype)[:, :, : self.keys]),
            *(self.width, self.n, gain, self.mask()),
            exact=ExactKeys(query, key[:, :, -self.recent :], 0.125, self.recent),
        )

    def mask(self) -> Tensor | None:
        if not self.padding:
            return None
        allowed = torch.arange(self.keys) >= torch.tensor(self.padding)[:, None]
        if self.holes:
            allowed[:, :-1] &= torch.rand(allowed.shape)[:, :-1] > 0.5
        return allowed[:, None, None]


CASES = {
    "a number": Case(),
    "a share": Case(n=0.1),
    "a share with a minimum": Case(n=ScaledN(0.05, 12)),
    "bfloat16": Case(dtype=torch.bfloat16),
    "one query head a key head": Case(heads=2),
    "a gain for each head": Case(gains=True),
    "ties everywhere": Case(equal=True, n=0.3),
    "N smaller than recent": Case(n=3),
    "N equal to recent": Case(n=RECENT),
    "one key beyond recent": Case(keys=RECENT + 1, n=0.9),
    "more wanted than there are": Case(n=400),
    "all keys": Case(n=1.0),
    "narrow values": Case(value_width=8),
    "a long text": Case(batch=1, keys=3000, n=1 / 16, width=128),
}
PADDED = {
    "left padding": Case(padding=(0, 90, 31)),
    "left padding, a share": Case(padding=(0, 90, 31), n=0.1),
    "left padding, a share with a minimum": Case(padding=(0, 90, 31), n=ScaledN(0.1, 9)),
    "rows shorter than recent": Case(padding=(0, 147, 149), n=0.1),
    "rows with no far key, or one": Case(padding=(10, 146, 145), n=20),
    "a row without any key": Case(padding=(150, 0, 3), n=0.2),
    "all far keys forbidden": Case(padding=(146, 146, 146), n=0.5),
    "N smaller than recent, padded": Case(padding=(0, 148, 31), n=3),
    "holes": Case(padding=(0, 90, 31), holes=True, n=10),
    "holes, a share with a minimum": Case(padding=(0, 90, 31), holes=True, n=ScaledN(0.1, 9)),
    "holes among many exact keys": Case(padding=(0, 90, 31), holes=True, n=0.4, recent=20),
    "bfloat16, padded": Case(padding=(0, 90, 31), n=0.1, dtype=torch.bfloat16),
}


def aligned(words: Tensor) -> Tensor:
    """In room for an even number of keys: those of every head begin on a boundary of 16 bytes."""
    keys = words.shape[2]
    return torch.cat([words, words[:, :, : keys % 2]], dim=2)[:, :, :keys]


def check(backend: str, call: PackedCall) -> None:
    chosen = choose_packed_backend(backend, call)
    output, expected = chosen.attend_packed(call), REFERENCE.attend_packed(call)
    assert chosen.name != EAGER.name
    assert output.dtype == expected.dtype
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(output, EAGER.attend_packed(call))


@pytest.mark.parametrize("case", (CASES | PADDED).values(), ids=CASES | PADDED)
def test_the_cpu_backend_equals_the_oracle(case: Case) -> None:
    pytest.importorskip("numba")
    check("cpu", case.call())


@pytest.mark.usefixtures("kernels_run_here")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_triton_equals_the_oracle(case: Case) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    check("triton_decode", _on(device, case.call()))


OF_CUDA = {name: case for name, case in (CASES | PADDED).items() if case.value_width == 64}


@pytest.mark.gpu
@needs_hopper
@pytest.mark.parametrize("exact", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", OF_CUDA.values(), ids=OF_CUDA)
def test_cuda_equals_the_oracle(case: Case, exact: torch.dtype) -> None:
    check("cuda_decode", _on("cuda", replace(case, dtype=torch.float16).call(), exact))


@pytest.mark.gpu
@needs_hopper
@pytest.mark.parametrize("padding", [(), (0, 147, 31)])
def test_cuda_equals_the_oracle_on_8_bit_values(padding: tuple[int, ...]) -> None:
    case = Case(n=0.2, padding=padding, value_width=128, dtype=torch.float8_e4m3fn)
    check("cuda_decode", _on("cuda", case.call()))


@pytest.mark.gpu
@needs_hopper
def test_cuda_replays_in_a_graph() -> None:
    """With other sequences, whose padding leaves other numbers of exact keys."""
    call = _on("cuda", Case(padding=(0, 147, 149), n=0.1, dtype=torch.float16).call())
    other = _on("cuda", Case(padding=(148, 0, 31), n=0.1, dtype=torch.float16).call())
    chosen = choose_packed_backend("cuda_decode", call)
    chosen.attend_packed(call)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = chosen.attend_packed(call)
    for name in ("query", "key", "value", "mask"):
        getattr(call, name).copy_(getattr(other, name))
    graph.replay()
    torch.testing.assert_close(output, REFERENCE.attend_packed(call))


@pytest.mark.parametrize(
    "name",
    [
        *("reference", "eager", "cpu"),
        pytest.param("cuda_decode", marks=[pytest.mark.gpu, needs_hopper]),
    ],
)
@pytest.mark.parametrize("padding", [(0, 0, 0), (0, 90, 31), (149, 147, 20)])
def test_keys_that_lie_apart_are_as_the_last_ones(padding: tuple[int, ...], name: str) -> None:
    """As a cache in fixed places has them: all its keys are given, and the mask ends before."""
    pytest.importorskip("numba")
    dtype = torch.float16 if name == "cuda_decode" else torch.float32
    call = Case(padding=padding, n=30, dtype=dtype).call()
    call = _on("cuda", call) if name == "cuda_decode" else call
    assert call.exact is not None
    assert call.mask is not None
    far = call.mask.clone()
    far[..., -RECENT:] = False
    beside = Apart(call.value[:, :, -RECENT:], call.mask[..., -RECENT:])
    apart = replace(call, mask=far, exact=replace(call.exact, apart=beside))
    chosen = choose_packed_backend(name, apart)
    torch.testing.assert_close(chosen.attend_packed(apart), REFERENCE.attend_packed(call))


def _on(device: str, call: PackedCall, exact_dtype: torch.dtype = torch.float32) -> PackedCall:
    assert call.exact is not None
    moved = (x.to(device, exact_dtype) for x in (call.exact.query, call.exact.key))
    exact = ExactKeys(*moved, call.exact.gain, call.exact.recent)
    given = {name: x.to(device) for name, x in vars(call).items() if isinstance(x, Tensor)}
    return replace(call, **given | {"key": aligned(given["key"])}, exact=exact)


def test_kept_keys_are_the_oracles_one_by_one() -> None:
    """Values that are the identity give the map of weights; of equal scores the first are kept."""
    pytest.importorskip("numba")
    for equal in (False, True):
        call = Case(padding=(0, 50, 99), n=0.2, keys=100, equal=equal).call()
        call = replace(call, value=torch.eye(100).expand(3, 2, 100, 100))
        found = choose_packed_backend("cpu", call).attend_packed(call)
        expected = REFERENCE.attend_packed(call)
        assert torch.equal(found > 0, expected > 0)
        assert (found > 0).sum(-1).flatten().tolist() == [20] * 4 + [10] * 4 + [1] * 4


@pytest.mark.parametrize(
    "name",
    ["cpu", "triton_decode", pytest.param("cuda_decode", marks=[pytest.mark.gpu, needs_hopper])],
)
@pytest.mark.usefixtures("kernels_run_here")
def test_the_log_of_the_sum_is_that_of_the_kept_scores(name: str) -> None:
    pytest.importorskip("numba")
    device = "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"
    dtype = torch.float16 if name == "cuda_decode" else torch.float32
    call = replace(_on(device, Case(gains=True, n=0.2, dtype=dtype).call()), exact=None)
    output, log_sums = BACKENDS[name].attend_part(call, 5)
    query, key = (unpack_signs(x, call.head_dim).double() for x in (call.query, call.key))
    scores = query @ key.repeat_interleave(2, 1).mT
    kept = topn_mask(scores, 26)  # a fifth of 155 keys is 31, of which 5 are elsewhere
    scores = (call.gain * scores).masked_fill(~kept, -torch.inf)
    wanted = scores.logsumexp(-1, keepdim=True)
    torch.testing.assert_close(log_sums.double(), wanted, atol=1e-6, rtol=1e-6)
    expected = scores.softmax(-1) @ call.value.double().repeat_interleave(2, 1)
    torch.testing.assert_close(output.double(), expected, atol=1e-5, rtol=1e-5)


def test_a_part_keeps_what_is_left_of_n() -> None:
    allowed, elsewhere = torch.tensor([100, 10, 3, 0]), torch.tensor([4, 4, 4, 2])
    assert keys_to_keep_of_part(10, allowed, elsewhere).tolist() == [6, 6, 3, 0]
    assert keys_to_keep_of_part(0.1, allowed, elsewhere).tolist() == [7, 0, 0, 0]
    assert keys_to_keep_of_part(ScaledN(0.1, 6), allowed, 4).tolist() == [7, 2, 2, 0]


@pytest.mark.parametrize("expanded", [False, True])
def test_one_mask_for_all_sequences(expanded: bool) -> None:
    pytest.importorskip("numba")
    mask = (torch.arange(150) >= 40)[None, None, None]
    check("cpu", with_mask(mask.expand(3, 1, 1, 150) if expanded else mask))


def with_mask(mask: Tensor) -> PackedCall:
    return replace(Case().call(), mask=mask)


def two_tokens() -> PackedCall:
    call = Case().call()
    assert call.exact is not None
    query = binarize(torch.randn(3, 4, 2, 64))
    return replace(call, query=pack_signs(query), exact=replace(call.exact, query=query))


def all_keys_exact(**changes: Any) -> PackedCall:
    call = Case().call()
    assert call.exact is not None
    exact = replace(call.exact, key=torch.randn(3, 2, 150, 64))
    return replace(call, exact=exact, **changes)


SCATTERED = torch.rand(3, 1, 1, 150, generator=torch.Generator().manual_seed(0)) > 0.5
OTHERS = {
    "two tokens": two_tokens,
    "a bias": lambda: replace(Case().call(), bias=torch.zeros(1)),
    "a mask for each head": lambda: with_mask(torch.ones(3, 4, 1, 150, dtype=torch.bool)),
    "a mask of one row": lambda: with_mask(torch.ones(150, dtype=torch.bool)),
    "no far key": lambda: Case(keys=RECENT).call(),
    "exact keys beyond the last": lambda: all_keys_exact(mask=SCATTERED),
}


@pytest.mark.parametrize("call", OTHERS.values(), ids=OTHERS)
def test_other_calls_are_left_to_the_eager_backend(call: Any) -> None:
    pytest.importorskip("numba")
    given = call()
    assert choose_packed_backend("auto", given) is EAGER
    torch.testing.assert_close(EAGER.attend_packed(given), REFERENCE.attend_packed(given))
    with pytest.raises(ValueError, match="does not support this call"):
        choose_packed_backend("cpu", given)


def test_of_all_keys_in_full_precision_only_the_last_are_exact() -> None:
    pytest.importorskip("numba")
    check("cpu", all_keys_exact())


def test_8_bit_values_come_out_wider() -> None:
    """No CPU kernel reads them: the far part is computed by hand, as `attend_part` should."""
    call = Case(n=12).call()
    call = replace(call, value=call.value.to(torch.float8_e4m3fn))

    class Far(type(BACKENDS["cpu"])):  # type: ignore[misc]
        def supports_part(self, call: PackedCall) -> bool:
            return True

        def attend_part(self, call: PackedCall, kept_elsewhere: Any) -> tuple[Tensor, Tensor]:
            return super().attend_part(replace(call, value=call.value.float()), kept_elsewhere)

    pytest.importorskip("numba")
    output = MergingBackend(Far()).attend_packed(call)
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, REFERENCE.attend_packed(call))
