"""The CUDA kernels of decoding, selection and packing on a CPU, in an emulation of their threads.

`emulation/cuda_device.cuh` takes the place of the header with all that only a GPU can do; the rest
is compiled as C++. That shows wrong results, missing barriers, and threads that wait in vain.
"""

from __future__ import annotations

import ctypes
from dataclasses import replace

import pytest
import torch
from emulated import NEEDED, Build, attend, attend_fused
from test_decode_backends import Case, expected
from torch import Tensor

from had.attention.backends import cuda_pack, cuda_select
from had.attention.backends.base import PackedCall
from had.attention.bits import pack_signs
from had.attention.cache_append import append
from had.attention.topn import ScaledN

pytestmark = NEEDED

SINGLE = Case(batch=1, groups=1)
HALF = Case(keys=131, width=64, value_width=64, dtype=torch.float16)
CASES = {
    "64 wide, odd number of keys": HALF,
    "float8": replace(HALF, dtype=torch.float8_e4m3fn, value_width=128),
    "one key": replace(SINGLE, keys=1, n=1),
    "more wanted than there are": replace(SINGLE, keys=30, n=40),
    "a sample": replace(SINGLE, keys=20011, n=100),
    "ties everywhere": replace(SINGLE, keys=20000, n=512, codes="equal"),
    "one hot region": replace(SINGLE, keys=20000, n=512, codes="hot"),
    "more than is staged at a time": replace(SINGLE, keys=30000, n=0.4),
    "eight rows": replace(SINGLE, heads=8, keys=20011, n=100),
    "six rows of three tokens, 64 wide": replace(
        SINGLE, heads=2, tokens=3, keys=20011, n=100, width=64, value_width=64
    ),
    "left padding, a gain for each head": Case(groups=1, keys=20011, mask="left", gains=True),
    "a fraction of the allowed keys": Case(groups=1, keys=10011, n=0.01, mask="scattered"),
    "a minimum beside a fraction": Case(
        groups=1, keys=10011, n=ScaledN(0.01, 60), mask="scattered"
    ),
    "a minimum that fewer are allowed than": Case(
        groups=1, keys=50, n=ScaledN(0.1, 45), mask="scattered"
    ),
    "a fraction beyond its minimum": Case(
        groups=1, keys=10011, n=ScaledN(0.05, 60), mask="scattered"
    ),
    "all of the allowed keys": Case(groups=1, keys=3001, n=1.0, mask="scattered"),
    "no key allowed": Case(groups=1, mask="none allowed"),
}


@pytest.mark.parametrize("eager", [False, True], ids=["late copies", "early copies"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_decoding_equals_the_definition(build: Build, case: Case, eager: bool) -> None:
    call = case.call()
    assert_equal(attend(build, call, splits=3, blocks=2, eager=eager), call)


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_one_kernel_equals_the_definition(build: Build, case: Case, splits: int) -> None:
    call = case.call()
    assert_equal(attend_fused(build, call, splits, eager=splits == 1), call)


def test_the_one_kernel_takes_mail_from_many_splits(build: Build) -> None:
    call = replace(SINGLE, keys=18 * 128, n=300, codes="few").call()
    assert_equal(attend_fused(build, call, splits=18, eager=False), call)


def assert_equal(output: Tensor, call: PackedCall) -> None:
    wanted = expected(call)
    allowed = torch.finfo(output.dtype).eps * wanted.abs() + 2e-5
    assert ((output.double() - wanted).abs() <= allowed).all()


@pytest.mark.parametrize("case", ["a sample", "more than is staged at a time"])
def test_decoding_does_not_depend_on_the_layout(build: Build, case: str) -> None:
    call = CASES[case].call()
    first = attend(build, call, splits=1, blocks=1, eager=False)
    assert torch.equal(attend(build, call, splits=20, blocks=1, eager=False), first)


def test_a_sample_that_misleads_costs_time_only(build: Build) -> None:
    """All sampled keys are close to the query: the level that they give is too high."""
    call = replace(SINGLE, keys=20011, n=4000).call()
    distance = 20011 // 1024
    for i in range(1024):  # as `sampled_key` in cuda_decode_score.cu
        key = i * distance + (i * 2654435761 % 2**32 * distance >> 32)
        call.key[:, :, key] = call.query[:, :1, 0]
    assert_equal(attend(build, call, splits=3, blocks=2, eager=False), call)


@pytest.mark.parametrize(
    ("rows", "count", "n", "blocks", "value"),
    [
        (2, 131072, 512, 1, None),
        (1, 500003, 5000, 8, None),
        (3, 17, 17, 1, None),
        (1, 40000, 20000, 2, None),
        (1, 131072, 512, 2, 9),
        (1, 131072, 512, 1, 0),
    ],
)
def test_selection_equals_a_stable_sort(
    build: Build, rows: int, count: int, n: int, blocks: int, value: int | None
) -> None:
    torch.manual_seed(count)
    scores = (torch.randn(rows, count) * 5.7 + 64).round().to(torch.uint8)
    if value is not None:
        scores.fill_(value)
    wanted = scores.argsort(dim=-1, descending=True, stable=True)[:, :n].sort(dim=-1).values
    assert torch.equal(select(build, scores, n, blocks), wanted)


def select(build: Build, scores: Tensor, n: int, blocks: int) -> Tensor:
    scores = cuda_select.aligned(scores)
    indices = torch.full((len(scores), n), -1)
    a = cuda_select.Arguments(
        scores.data_ptr(), indices.data_ptr(), scores.stride(0), scores.shape[1], n
    )
    constants = {"THREADS": cuda_select.THREADS, "SHARED_BYTES": cuda_select.SHARED_BYTES}
    library = build("select.cpp", constants)
    library.run_select(ctypes.byref(a), blocks, len(scores))
    return indices


@pytest.mark.parametrize("dtype", cuda_pack.CONSTANTS, ids=str)
@pytest.mark.parametrize("width", [40, 128])
def test_packing_is_that_of_bits(build: Build, dtype: torch.dtype, width: int) -> None:
    """Rows transposed as models hand them over, into a buffer with room around them."""
    x = torch.randn(2, 7, 3, width).to(dtype).transpose(1, 2)
    x[0, 0, 0, :5] = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan])
    x[0, 0, 1, :2] = torch.tensor([1.0, -1.0]) * torch.finfo(dtype).smallest_normal / 2
    buffer = torch.full((2, 3, 12, -(-width // 32)), 77, dtype=torch.int32)
    words = buffer[:, :, 4:11]
    a, warps = cuda_pack.arguments(x, words), cuda_pack.THREADS // 32
    constants = {"THREADS": cuda_pack.THREADS, "SHARED_BYTES": 0}
    library = build("pack.cpp", dict(cuda_pack.CONSTANTS[dtype]) | constants)
    library.run_pack(ctypes.byref(a), -(-7 // warps), 3, 2)
    assert torch.equal(words, pack_signs(x))
    assert (buffer[:, :, :4] == 77).all()
    assert (buffer[:, :, 11:] == 77).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("tokens", [1, 6])
def test_appending_puts_new_tokens_where_they_belong(
    build: Build, dtype: torch.dtype, tokens: int
) -> None:
    """Keys and values as projections give them, into the middle of buffers."""
    new = torch.randn(2, tokens, 3, 64 + 34).to(dtype).transpose(1, 2)
    key, value = new[..., :64], new[..., 64:]
    words = torch.full((2, 3, 20, 2), 77, dtype=torch.int32)
    values = torch.full((2, 3, 20, 34), 7.0, dtype=dtype)
    wanted_words, wanted_values = words.clone(), values.clone()
    append(key, value, wanted_words, wanted_values, at=9)
    assert torch.equal(wanted_values[:, :, 9 : 9 + tokens], value)
    assert cuda_pack.copies(value, values)
    a = cuda_pack.arguments_of_append(key, value, words, values, at=9)
    constants = {"THREADS": cuda_pack.THREADS, "SHARED_BYTES": 0}
    library = build("pack.cpp", dict(cuda_pack.CONSTANTS[dtype]) | constants)
    library.run_pack(ctypes.byref(a), -(-tokens * 32 // cuda_pack.THREADS), 3, 2)
    assert torch.equal(words, wanted_words)
    assert torch.equal(values, wanted_values)


def test_rows_that_are_no_whole_words_are_not_copied_as_such() -> None:
    values = torch.zeros(1, 2, 8, 6, dtype=torch.bfloat16)
    assert cuda_pack.copies(values[:, :, :1], values)
    assert not cuda_pack.copies(values[..., :5], values)
    assert not cuda_pack.copies(values[..., 1:5], values)
    assert not cuda_pack.copies(values.float(), values)
    assert not cuda_pack.copies(values.mT.contiguous().mT, values)
