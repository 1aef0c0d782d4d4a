"""The kernels for exact recent keys on a CPU: attention to a part of a row, and its merging."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from functools import partial

import pytest
import test_merging
import torch
from emulated import NEEDED, Build, attend, attend_fused
from test_cuda_emulated import HALF, SINGLE
from test_decode_backends import Case
from torch import Tensor

from had.attention.backends import cuda_compile, cuda_merge, torch_merge
from had.attention.backends.base import Apart, ExactKeys, PackedCall
from had.attention.backends.cuda_decode import CudaDecodeBackend
from had.attention.backends.cuda_decode_shape import Part
from had.attention.bits import unpack_signs
from had.attention.topn import ScaledN, keys_to_keep_of_part

pytestmark = NEEDED

# A part of every row's keys, and how many a row keeps in the rest: a number, or one a sequence.
PARTS: dict[str, tuple[Case, int | list[int]]] = {
    "a number": (replace(SINGLE, keys=700, n=60, groups=2), 7),
    "a number, of which none is left": (replace(SINGLE, keys=700, n=7), 7),
    "a number larger than all": (replace(SINGLE, keys=30, n=60), 7),
    "a share": (replace(HALF, n=0.1), 16),
    "a share, of which none is left": (replace(HALF, n=0.01), 5),
    "a minimum beside a share": (replace(SINGLE, keys=700, n=ScaledN(0.02, 40)), 16),
    "a share beyond its minimum, of a sample": (
        replace(SINGLE, keys=20011, n=ScaledN(0.02, 40)),
        16,
    ),
    "float8, a gain for each head": (
        replace(HALF, dtype=torch.float8_e4m3fn, value_width=128, gains=True),
        4,
    ),
    "six rows of three tokens": (replace(SINGLE, heads=2, tokens=3, keys=700), 5),
    "left padding": (Case(keys=1200, n=90, mask="left"), [16, 3]),
    "left padding, a share": (Case(keys=1200, n=0.1, mask="left", gains=True), [16, 3]),
    "left padding, a share with a minimum": (
        Case(keys=1200, n=ScaledN(0.03, 30), mask="left"),
        [16, 3],
    ),
    "scattered, one number for all": (Case(keys=1200, n=ScaledN(0.03, 30), mask="scattered"), [16]),
    "no key allowed": (Case(groups=1, mask="none allowed"), [2, 0]),
    "ties everywhere": (replace(SINGLE, keys=1200, n=100, codes="equal"), 16),
    "all keys": (replace(SINGLE, keys=1200, n=1.0), 16),
}


@pytest.mark.parametrize("kernels", [1, 2])
@pytest.mark.parametrize(("case", "elsewhere"), PARTS.values(), ids=PARTS)
def test_a_part_equals_the_definition(
    build: Build, case: Case, elsewhere: int | list[int], kernels: int
) -> None:
    call = case.call()
    kept = elsewhere if isinstance(elsewhere, int) else torch.tensor(elsewhere)[:, None, None]
    part = Part.of(call, kept)
    part.log_sums.fill_(torch.nan)
    if kernels == 1:
        output = attend_fused(build, call, splits=3, eager=False, part=part)
    else:
        output = attend(build, call, splits=3, blocks=2, eager=False, part=part)
    wanted, log_sums = expected_part(call, kept)
    assert output.dtype == torch.float32
    assert ((output.double() - wanted).abs() <= 2e-5).all()
    torch.testing.assert_close(part.log_sums.double(), log_sums, atol=1e-5, rtol=1e-6)


def expected_part(call: PackedCall, elsewhere: int | Tensor) -> tuple[Tensor, Tensor]:
    """What `Backend.attend_part` promises, in float64: kept keys by a stable sort, row by row."""
    query, key = (unpack_signs(x, call.head_dim) for x in (call.query, call.key))
    shared = query.shape[1] // key.shape[1]
    scores = query @ key.repeat_interleave(shared, 1).mT
    mask = torch.ones(1, 1, 1, 1, dtype=torch.bool) if call.mask is None else call.mask
    mask = mask.expand(scores.shape)
    keep = keys_to_keep_of_part(call.n, mask.sum(-1), elsewhere)
    order = scores.masked_fill(~mask, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    place = torch.empty_like(order).scatter_(
        -1, order, torch.arange(order.shape[-1]).expand_as(order)
    )
    logits = (scores.double() * call.gain).masked_fill(place >= keep[..., None], -torch.inf)
    output = logits.softmax(-1).nan_to_num(0.0) @ call.value.double().repeat_interleave(shared, 1)
    return output, logits.logsumexp(-1, keepdim=True)


def merge(build: Build, exact: ExactKeys, far: Tensor, log_sums: Tensor) -> Tensor:
    """As `cuda_merge.merge`."""
    assert cuda_merge.supports(exact)
    value = exact.beside.value
    dtype = torch.float32 if value.element_size() == 1 else value.dtype
    output = torch.full(far.shape, torch.nan, dtype=dtype)
    constants = dict(cuda_merge.constants(exact))
    sizes = {"THREADS": cuda_merge.THREADS, "SHARED_BYTES": cuda_merge.SHARED_BYTES}
    library = build("merge.cpp", constants | sizes)
    a = cuda_merge.arguments(exact, far, log_sums, output)
    heads, batch, _ = cuda_merge.grid(far)
    library.run_merge(ctypes.byref(a), heads, batch)
    return output


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("dtype", "value_dtype", "width", "value_width", "keys"),
    [
        (torch.bfloat16, torch.bfloat16, 64, 128, 16),
        (torch.float16, torch.float16, 128, 64, 37),
        (torch.float32, torch.float8_e4m3fn, 64, 64, 1),
        (torch.bfloat16, torch.float8_e4m3fn, 128, 128, 300),
    ],
)
def test_merging_is_that_of_plain_operations(
    build: Build,
    masked: bool,
    dtype: torch.dtype,
    value_dtype: torch.dtype,
    width: int,
    value_width: int,
    keys: int,
) -> None:
    """Tensors as a layer has them: heads of a token side by side, keys in a larger buffer."""
    torch.manual_seed(keys)
    query = torch.randn(2, 1, 6, width).to(dtype).transpose(1, 2)
    key = torch.randn(2, 3, keys + 5, width).to(dtype)[:, :, 2 : keys + 2]
    value = torch.randn(2, 3, keys + 7, value_width).to(value_dtype)[:, :, 7:]
    allowed = torch.rand(2, 1, 1, keys) > 0.4 if masked else None
    exact = ExactKeys(query, key, 0.2, keys, Apart(value, allowed))
    far, log_sums = torch.randn(2, 6, 1, value_width), 3 * torch.randn(2, 6, 1, 1)
    log_sums[0, 1:3], far[0, 1:3] = -torch.inf, 0.0
    if masked:
        allowed[0] = False
    output = merge(build, exact, far, log_sums)
    wanted = torch_merge.merge(exact, far, log_sums)
    assert output.dtype == wanted.dtype
    torch.testing.assert_close(output, wanted)
    assert not masked or (output[0, 1:3] == 0).all()


MERGED = {
    "a number": test_merging.Case(),
    "a share with a minimum": test_merging.Case(n=ScaledN(0.05, 12), gains=True),
    "one far key": test_merging.Case(keys=test_merging.RECENT + 1, n=0.9, width=128),
    "none left of N": test_merging.Case(n=3),
    "left padding, a share": test_merging.PADDED["left padding, a share"],
    "rows with no far key, or one": test_merging.PADDED["rows with no far key, or one"],
    "a row without any key": test_merging.PADDED["a row without any key"],
}


@pytest.mark.parametrize("case", MERGED.values(), ids=MERGED)
def test_merged_with_exact_keys_it_equals_the_oracle(
    build: Build, case: test_merging.Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend as it is chosen, its launches aside."""

    def attend_part(self: object, call: PackedCall, kept: Tensor | int) -> tuple[Tensor, Tensor]:
        part = Part.of(call, kept)
        return attend_fused(build, call, splits=2, eager=True, part=part), part.log_sums

    monkeypatch.setattr(cuda_compile, "runs_on", lambda device: True)
    monkeypatch.setattr(CudaDecodeBackend, "attend_part", attend_part)
    monkeypatch.setattr(cuda_merge, "merge", partial(merge, build))
    test_merging.check("cuda_decode", replace(case, dtype=torch.bfloat16).call())
