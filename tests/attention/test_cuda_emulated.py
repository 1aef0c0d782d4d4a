"""The CUDA kernels of decoding, selection and packing on a CPU, in an emulation of their threads.

`emulation/cuda_device.cuh` takes the place of the header with all that only a GPU can do; the rest
is compiled as C++. That shows wrong results, missing barriers, and threads that wait in vain.
"""

from __future__ import annotations

import ctypes
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import test_merging
import torch
from test_decode_backends import Case, expected
from torch import Tensor

from had.attention.backends import (
    cuda_compile,
    cuda_decode_fused,
    cuda_decode_plan,
    cuda_merge,
    cuda_pack,
    cuda_select,
    parts,
)
from had.attention.backends.base import ExactKeys, PackedCall
from had.attention.backends.cuda_decode import CudaDecodeBackend
from had.attention.backends.cuda_decode_fused import mail_words
from had.attention.backends.cuda_decode_plan import scratch_sizes, template
from had.attention.backends.cuda_decode_shape import Arguments, Part, Shape
from had.attention.bits import pack_signs, unpack_signs
from had.attention.cache_append import append
from had.attention.topn import ScaledN, keys_to_keep_of_part

SOURCES = Path(cuda_decode_plan.__file__).parent
EMULATION = Path(__file__).parent / "emulation"

FLAGS = (
    *("-O1", "-std=c++17", "-shared", "-fPIC", "-w", "-fno-strict-aliasing"),
    *("-fno-gnu-unique", "-Wl,-Bsymbolic"),  # names are those of their library
    *("-fsanitize=alignment,bounds", "-fsanitize-undefined-trap-on-error"),
)
pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler"),
    pytest.mark.skipif(
        (sys.platform, platform.machine()) != ("linux", "x86_64"),
        reason="the emulation switches stacks on Linux on x86-64 only",
    ),
    pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels run on the GPU itself"),
]
Build = Callable[[str, dict[str, int]], ctypes.CDLL]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A function that compiles a program of the emulation with constants, once each."""
    folder = tmp_path_factory.mktemp("emulation")
    for source in SOURCES.glob("cuda_*.cu"):
        (folder / source.name).write_text(flattened(source.name))
    libraries: dict[str, ctypes.CDLL] = {}

    def compiled(program: str, constants: dict[str, int]) -> ctypes.CDLL:
        options = [f"-D{name}={value}" for name, value in constants.items()]
        library = folder / f"{len(libraries)}.so"
        key = " ".join([program, *options])
        if key not in libraries:
            command = ["g++", *FLAGS, *options, f"-I{folder}", str(EMULATION / program)]
            subprocess.run([*command, "-o", str(library)], check=True)
            libraries[key] = ctypes.CDLL(str(library))
        return libraries[key]

    return compiled


def flattened(name: str) -> str:
    """A source with all it includes, but the header that the emulation replaces."""
    if name == "cuda_device.cuh":
        return ""
    return re.sub(r'#include "([^"]+)"\n', lambda m: flattened(m[1]), (SOURCES / name).read_text())


def library_of(build: Build, shape: Shape, eager: bool) -> ctypes.CDLL:
    names = ("SCORE_THREADS", "SCORE_SHARED_BYTES", "GATHER_THREADS", "GATHER_SHARED_BYTES")
    constants = dict(shape.constants()) | {name: getattr(cuda_decode_plan, name) for name in names}
    constants |= {"FUSED_THREADS": cuda_decode_fused.THREADS}
    library = build("decode.cpp", constants)
    library.copy_eagerly(eager)
    return library


def run(
    call: PackedCall,
    shape: Shape,
    a: Arguments,
    launch: Callable[[Arguments], None],
    part: Part | None,
) -> Tensor:
    """The output of a call: its addresses are filled in before it is launched."""
    size = (shape.batch, shape.heads, shape.tokens, shape.width)
    output = torch.full(size, torch.nan, dtype=shape.output_dtype)
    query = call.query.contiguous()
    mask = None if call.mask is None else followed_by_garbage(call.mask)
    a.point_to(replace(call, mask=mask), query, output, part)
    launch(a)
    return output


def attend(
    build: Build,
    call: PackedCall,
    splits: int,
    blocks: int,
    eager: bool,
    part: Part | None = None,
) -> Tensor:
    """Both kernels, with so many splits of the keys and so many blocks for a row's values."""
    shape = Shape.of(call, part is not None)
    library, a = library_of(build, shape, eager), template(shape, splits)
    scratch = [torch.full((n,), 0x5A, dtype=torch.uint8) for n in scratch_sizes(shape, a)]
    a.list, a.listed, a.histogram, a.allowed = (x.data_ptr() for x in scratch)

    def launch(a: Arguments) -> None:
        library.run_score(ctypes.byref(a), splits, shape.groups, shape.batch)
        library.run_gather(ctypes.byref(a), blocks, shape.groups * shape.rows, shape.batch)

    return run(call, shape, a, launch, part)


def attend_fused(
    build: Build, call: PackedCall, splits: int, eager: bool, part: Part | None = None
) -> Tensor:
    """The one kernel, with so many splits of the keys; afterwards its mail is as it was."""
    shape = Shape.of(call, part is not None)
    library = library_of(build, shape, eager)
    a = cuda_decode_fused.template(shape, splits)
    mail = torch.full((mail_words(a.splits * shape.batch * shape.groups),), -1, dtype=torch.int32)
    a.mail = mail.data_ptr()
    size = cuda_decode_fused.shared_bytes(shape, a)

    def launch(a: Arguments) -> None:
        library.run_fused(ctypes.byref(a), a.splits, shape.groups, shape.batch, size)

    output = run(call, shape, a, launch, part)
    assert (mail == -1).all()
    return output


def followed_by_garbage(mask: Tensor) -> Tensor:
    """The mask, bytes that are no part of it behind its rows."""
    memory = torch.full((mask.numel() + 16,), 0xFE, dtype=torch.uint8)
    view = memory[: mask.numel()].view(mask.shape)
    view.copy_(mask)
    return view.view(torch.bool)


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


def merge(
    build: Build,
    exact: ExactKeys,
    value: Tensor,
    allowed: Tensor | None,
    far: Tensor,
    log_sums: Tensor,
) -> Tensor:
    """As `cuda_merge.merge`."""
    assert cuda_merge.supports(exact, value, allowed)
    dtype = torch.float32 if value.element_size() == 1 else value.dtype
    output = torch.full(far.shape, torch.nan, dtype=dtype)
    constants = dict(cuda_merge.constants(exact, value, allowed))
    sizes = {"THREADS": cuda_merge.THREADS, "SHARED_BYTES": cuda_merge.SHARED_BYTES}
    library = build("merge.cpp", constants | sizes)
    a = cuda_merge.arguments(exact, value, allowed, far, log_sums, output)
    library.run_merge(ctypes.byref(a), *reversed(far.shape[:2]))
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
    exact = ExactKeys(query, key, 0.2, keys)
    allowed = torch.rand(2, 1, 1, keys) > 0.4 if masked else None
    far, log_sums = torch.randn(2, 6, 1, value_width), 3 * torch.randn(2, 6, 1, 1)
    log_sums[0, 1:3], far[0, 1:3] = -torch.inf, 0.0
    if masked:
        allowed[0] = False
    output = merge(build, exact, value, allowed, far, log_sums)
    wanted = parts.merge(exact, value, allowed, far, log_sums)
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
