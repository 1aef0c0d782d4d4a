"""Decoding from bits against the definition in float64: selection, outputs, repeatability.

Values are -1 or +1 and the gain is small, so that one wrong key moves the output by more than its
type's rounding. Without a CUDA device the Triton kernels run in the interpreter, on small cases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from had.attention.backends import (
    BACKENDS,
    PackedCall,
    choose_packed_backend,
    cuda_compile,
    cuda_decode,
    cuda_decode_fused,
    cuda_decode_plan,
    cuda_merge,
    cuda_pack,
)
from had.attention.backends.cuda_decode_plan import most_blocks, splits_of
from had.attention.backends.cuda_decode_shape import Shape
from had.attention.bits import pack_signs, unpack_signs
from had.attention.topn import ScaledN, TopN, topn_mask

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TRITON, CUDA = BACKENDS["triton_decode"], BACKENDS["cuda_decode"]
HOPPER = DEVICE == "cuda" and torch.cuda.get_device_capability() == (9, 0)

pytestmark = [
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
]
needs_hopper = pytest.mark.skipif(not HOPPER, reason="needs a CUDA device of capability 9.0")


@dataclass(frozen=True)
class Case:
    """A random step: shapes, and what is special about it."""

    batch: int = 2
    heads: int = 4
    groups: int = 2
    tokens: int = 1
    keys: int = 200
    width: int = 128
    value_width: int = 128
    n: TopN = 20
    dtype: torch.dtype = torch.bfloat16
    codes: str = "random"
    mask: str | None = None
    gains: bool = False

    def call(self) -> PackedCall:
        torch.manual_seed(self.keys)
        query = torch.randn(self.batch, self.heads, self.tokens, self.width, device=DEVICE)
        shape = (self.batch, self.groups, self.keys)
        # A view into a larger buffer, as a cache hands it over.
        room = self.keys + 64 + self.keys % 2
        buffer = torch.randn(*shape[:2], room, self.width, device=DEVICE)
        shared = self.heads // self.groups
        key = CODES[self.codes](buffer, query[:, ::shared, :1], self.keys)
        bits = pack_signs(key)[:, :, : self.keys]
        value = 2 * torch.randint(0, 2, (*shape, self.value_width), device=DEVICE) - 1
        gain = 0.004 * (1 + torch.rand(1, self.heads, 1, 1, device=DEVICE)) if self.gains else 0.004
        mask = None if self.mask is None else MASKS[self.mask](self.batch, self.keys)
        bits_query = pack_signs(query)
        values = value.to(self.dtype)
        return PackedCall(bits_query, bits, values, self.width, self.n, gain, mask)


def _hot(key: Tensor, query: Tensor, keys: int) -> Tensor:
    """A quarter of the keys, side by side, are close to the query."""
    key[:, :, keys // 3 : keys // 3 + keys // 4] = (
        query + 0.5 * key[:, :, keys // 3 : keys // 3 + keys // 4]
    )
    return key


def _misleading(key: Tensor, query: Tensor, keys: int) -> Tensor:
    """Every 2048 keys begin with 128 that equal the query: a sample from there sees only those."""
    hot = torch.arange(key.shape[2], device=key.device) % 2048 < 128
    return torch.where(hot[:, None], query, key)


CODES = {
    "random": lambda key, query, keys: key,
    "equal": lambda key, query, keys: key[:, :, :1].expand_as(key),
    "few": lambda key, query, keys: key[:, :, torch.arange(key.shape[2], device=DEVICE) * 7 % 16],
    "hot": _hot,
    "misleading": _misleading,
}
MASKS = {
    "left": lambda batch, keys: (
        torch.arange(keys, device=DEVICE)
        >= torch.linspace(0, 0.9 * keys, batch, device=DEVICE)[:, None]
    )[:, None, None, :],
    "scattered": lambda batch, keys: torch.rand(batch, 1, 1, keys, device=DEVICE) > 0.4,
    "none allowed": lambda batch, keys: torch.zeros(
        batch, 1, 1, keys, dtype=torch.bool, device=DEVICE
    ),
}


def expected(call: PackedCall) -> Tensor:
    """The oracle's selection, and the softmax in float64."""
    shared = call.query.shape[1] // call.key.shape[1]
    rows = []
    for b in range(len(call.query)):
        query, key = (unpack_signs(x[b : b + 1], call.head_dim) for x in (call.query, call.key))
        scores = query @ key.repeat_interleave(shared, 1).mT
        mask = None if call.mask is None else call.mask.expand(len(call.query), -1, -1, -1)[b]
        kept = topn_mask(scores, call.n, mask)
        logits = (scores.double() * call.gain).masked_fill(~kept, -torch.inf)
        weights = logits.softmax(-1).nan_to_num(0.0)
        rows.append(weights @ call.value[b].double().repeat_interleave(shared, 0))
    return torch.cat(rows)


def check(backend: str, call: PackedCall) -> None:
    chosen = choose_packed_backend(backend, call)
    output, wanted = chosen.attend_packed(call), expected(call)
    narrow = call.value.element_size() == 1
    rounding = torch.finfo(output.dtype).eps
    allowed = rounding * wanted.abs() + 2e-5
    assert output.dtype == (torch.float32 if narrow else call.value.dtype)
    assert ((output.double() - wanted).abs() <= allowed).all()
    assert torch.equal(output, chosen.attend_packed(call))


SMALL = {
    "grouped heads": Case(),
    "one query head a key head": Case(heads=2),
    "64 wide, odd number of keys": Case(width=64, value_width=64, keys=131),
    "two tokens": Case(tokens=2),
    "float16": Case(dtype=torch.float16),
    "more wanted than there are": Case(keys=30, n=40),
    "one key": Case(keys=1, n=1),
    "a fraction": Case(n=0.05),
    "a fraction with a minimum": Case(n=ScaledN(0.05, 30)),
    "ties everywhere": Case(codes="equal"),
    "sixteen codes": Case(codes="few"),
    "left padding, a gain for each head": Case(mask="left", gains=True),
    "scattered mask": Case(mask="scattered", n=100),
    "no key allowed": Case(mask="none allowed"),
}


@pytest.mark.usefixtures("kernels_run_here")
@pytest.mark.parametrize("case", SMALL.values(), ids=SMALL)
def test_triton_equals_the_definition(case: Case) -> None:
    check("triton_decode", replace(case, dtype=torch.float16).call())


LARGE = SMALL | {
    "eight rows": Case(heads=16),
    "six rows of three tokens": Case(tokens=3),
    "float8": Case(dtype=torch.float8_e4m3fn),
    "narrow values": Case(value_width=64),
    "fraction of the allowed keys": Case(n=0.1, mask="left", keys=3001),
    "a minimum beside a fraction": Case(n=ScaledN(0.02, 80), mask="left", keys=10011),
    "all of the allowed keys": Case(n=1.0, mask="scattered", keys=3001),
    "one stage": Case(batch=1, keys=4133, n=128),
    "many stages": Case(batch=1, keys=131072, n=512),
    "many batches": Case(batch=40, heads=32, groups=8, keys=4096, n=128),
    "a sample that misleads": Case(batch=1, keys=131072, n=512, codes="misleading"),
    "long lists": Case(batch=1, keys=40000, n=0.3),
    "many ties": Case(batch=1, keys=131072, n=512, codes="equal"),
    "one hot region": Case(batch=1, keys=131072, n=512, codes="hot"),
    "a million keys": Case(batch=1, keys=2**20, n=10485),
}


@pytest.mark.gpu
@needs_hopper
@pytest.mark.parametrize("case", LARGE.values(), ids=LARGE)
def test_cuda_equals_the_definition(case: Case) -> None:
    check("cuda_decode", case.call())


@pytest.mark.gpu
@needs_hopper
@pytest.mark.parametrize(
    "case", ["many stages", "a sample that misleads", "long lists", "many ties", "one hot region"]
)
def test_two_cuda_kernels_equal_the_definition(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of steps that one kernel would take."""
    monkeypatch.setattr(cuda_decode, "plan_for", cuda_decode_plan.TwoKernels)
    check("cuda_decode", LARGE[case].call())


@pytest.mark.gpu
@needs_hopper
@pytest.mark.parametrize("n", [60, 0.05, ScaledN(0.05, 300)])
@pytest.mark.parametrize("mask", [None, "left"])
def test_cuda_plans_once_for_many_lengths(n: TopN, mask: str | None) -> None:
    """The plan of the longest serves all: the kernels are told how many keys there are."""
    call = Case(keys=9728, n=n, mask=mask).call()
    cuda_decode.plan_for.cache_clear()
    for keys in (9728, 9727, 9300, 9217):
        parts = {"key": call.key[:, :, :keys], "value": call.value[:, :, :keys]}
        allowed = None if call.mask is None else call.mask[..., :keys]
        check("cuda_decode", replace(call, **parts, mask=allowed))
    assert cuda_decode.plan_for.cache_info().misses == 1


@pytest.mark.gpu
@needs_hopper
def test_cuda_replays_in_a_graph() -> None:
    call = Case(keys=5000).call()
    first = CUDA.attend_packed(call).clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = CUDA.attend_packed(call)
    graph.replay()
    assert torch.equal(output, first)
    call.value.neg_()
    graph.replay()
    assert torch.equal(output, -first)


@pytest.mark.gpu
@needs_hopper
@pytest.mark.parametrize(
    "change",
    [
        {"heads": 18},
        {"width": 96},
        {"value_width": 96},
        {"dtype": torch.float32},
    ],
    ids=str,
)
def test_cuda_refuses_what_it_cannot_do(change: dict[str, int]) -> None:
    assert CUDA.supports_packed(Case().call())
    assert not CUDA.supports_packed(replace(Case(), **change).call())


@pytest.mark.skipif(DEVICE == "cuda", reason="for machines without a CUDA device")
def test_cuda_refuses_the_cpu() -> None:
    assert not CUDA.supports_packed(Case().call())


@pytest.mark.usefixtures("kernels_run_here")
def test_triton_refuses_what_it_cannot_do() -> None:
    assert TRITON.supports_packed(Case().call())
    assert not TRITON.supports_packed(Case(n=0.5, mask="left").call())
    assert not TRITON.supports_packed(replace(Case().call(), bias=torch.zeros(1, device=DEVICE)))


KERNELS = {
    "cuda_decode_score.cu": (cuda_decode_plan.SCORE_THREADS, cuda_decode_plan.SCORE_SHARED_BYTES),
    "cuda_decode_gather.cu": (
        cuda_decode_plan.GATHER_THREADS,
        cuda_decode_plan.GATHER_SHARED_BYTES,
    ),
    "cuda_decode_fused.cu": (cuda_decode_fused.THREADS, cuda_decode_fused.MOST_BYTES),
    "cuda_pack.cu": (cuda_pack.THREADS, 0),
    "cuda_merge.cu": (cuda_merge.THREADS, cuda_merge.SHARED_BYTES),
}


@pytest.mark.skipif(not cuda_compile.bindings_installed(), reason="needs cuda-bindings for NVRTC")
@pytest.mark.parametrize("source", KERNELS)
def test_kernels_compile_without_a_device(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAD_CACHE", str(tmp_path))
    constants = dict(cuda_pack.CONSTANTS[torch.bfloat16]) | {
        "WORDS": 2,
        "VALUE": 64,
        "VALUE_BYTES": 2,
        "BFLOAT16": 1,
        "ROWS": 4,
        "GROUP": 4,
        "MASKED": 1,
        "PART": 1,
        "WIDTH": 64,
        "KEY_FLOAT": 2,
    }
    constants |= dict(zip(("THREADS", "SHARED_BYTES"), KERNELS[source], strict=True))
    code = cuda_compile.machine_code(source, tuple(constants.items()), "sm_90a")
    (kept,) = (tmp_path / "kernels").iterdir()
    assert code.startswith(b"\x7fELF")
    assert kept.read_bytes() == code
    kept.write_bytes(b"from the cache")
    again = cuda_compile.machine_code(source, tuple(constants.items()), "sm_90a")
    assert again == b"from the cache"


def shape_of(batch: int, keys: int, n: TopN) -> Shape:
    """Of a step of 32 query and 8 key heads of 128, on no device."""
    query = torch.empty(batch, 32, 1, 4, dtype=torch.int32, device="meta")
    key = torch.empty(batch, 8, keys, 4, dtype=torch.int32, device="meta")
    value = torch.empty(batch, 8, keys, 128, dtype=torch.bfloat16, device="meta")
    return Shape.of(PackedCall(query, key, value, 128, n, 1.0))


def test_a_growing_text_keeps_its_shape_for_many_steps() -> None:
    """So that a token seldom plans anew; and what N is, is never confused."""

    def shape(keys: int, n: TopN = 30) -> Shape:
        call = Case(keys=2000, n=n, mask="left").call()
        parts = {"key": call.key[:, :, :keys], "value": call.value[:, :, :keys]}
        return Shape.of(replace(call, **parts, mask=call.mask[..., :keys]))

    assert {shape(keys) for keys in range(1025, 1537)} == {shape(1536)}
    assert shape(1024) != shape(1025)
    assert shape(1025).most_kept == 30
    assert shape(1025, n=1) != shape(1025, n=1.0)
    assert shape(1025, n=ScaledN(0.1, 200)).most_kept == 200
    assert shape(1025, n=ScaledN(0.5, 200)).most_kept == 768
    with pytest.raises(ValueError, match="n = 0"):
        shape(1025, n=0)


# Of 132 multiprocessors that hold three blocks each: one wave that fills them, as long as a split
# keeps 4096 keys and every warp of a block a few. Up to eight blocks share a row's values, if they
# have 128 each.
@pytest.mark.parametrize(
    ("batch", "keys", "n", "splits", "blocks"),
    [
        (8, 131072, 512, 6, 4),
        (1, 131072, 512, 32, 4),
        (1, 32768, 512, 16, 4),
        (1, 4096, 128, 4, 1),
        (1, 2**20, 10485, 49, 8),
        (64, 32768, 512, 1, 4),
        (1, 1, 1, 1, 1),
    ],
)
def test_cuda_work_is_divided_to_fill_the_device(
    batch: int, keys: int, n: int, splits: int, blocks: int
) -> None:
    shape = shape_of(batch, keys, n)
    assert splits_of(shape, processors=132, resident=396) == splits
    assert most_blocks(shape) == blocks


# A split for every multiprocessor of a key head, in whole blocks, none shorter than 512 keys; a
# multiprocessor's shared memory must hold the scores.
@pytest.mark.parametrize(
    ("batch", "keys", "splits", "split_keys", "fits"),
    [
        (1, 4096, 8, 512, True),
        (1, 131072, 16, 8192, True),
        (8, 32768, 2, 16384, True),
        (1, 1, 1, 512, True),
        (1, 2**20, 16, 65536, False),
        (17, 4096, 0, 0, False),
    ],
)
def test_one_kernel_takes_what_is_resident_together(
    batch: int, keys: int, splits: int, split_keys: int, fits: bool
) -> None:
    shape = shape_of(batch, keys, 9)
    assert cuda_decode_fused.fits(shape, processors=132) == fits
    if splits:
        a = cuda_decode_fused.template(shape, cuda_decode_fused.splits_of(shape, processors=132))
        assert (a.splits, a.split_keys) == (splits, split_keys)


# Blocks of one kernel each gather a split's share of the kept keys of four rows. Two kernels would
# list all of 8192 keys.
@pytest.mark.parametrize(
    ("batch", "keys", "n", "worthwhile"),
    [
        (1, 4096, 128, True),
        (1, 131072, 512, True),
        (1, 2**18, 2621, True),
        (4, 32768, 512, True),
        (8, 4096, 128, True),
        (8, 4096, 512, True),
        (8, 8192, 512, True),
        (8, 32768, 512, False),
    ],
)
def test_two_kernels_take_what_gathers_much(
    batch: int, keys: int, n: int, worthwhile: bool
) -> None:
    shape = shape_of(batch, keys, n)
    assert cuda_decode_fused.worthwhile(shape, processors=132) == worthwhile
