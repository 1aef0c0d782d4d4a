"""What a decoded token costs the host: operations, launches and plans, counted without a device.

The kernels are launched by stand-ins that write nothing, on CPU tensors that claim to be elsewhere;
what they compute is for other tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from had.attention.backends import (
    cuda_compile,
    cuda_decode,
    cuda_decode_fused,
    cuda_decode_plan,
    cuda_merge,
    cuda_pack,
)
from had.attention.cache_layers import BinaryKeyLayer
from had.attention.module import HammingAttention
from had.attention.options import AttentionGeometry, AttentionOptions
from had.attention.topn import TopN

HEADS, GROUPS, WIDTH = 8, 2, 64
CONTEXT = 1100  # tokens before those that are counted
VIEWS = {"aten.narrow.default", "aten.slice.Tensor", "aten.detach.default"}
ALLOCATIONS = {"aten.empty.memory_format", "aten.new_empty.default", "aten.empty_like.default"}
NOTHING = {"aten.to.dtype"}  # where the type is that already


@dataclass
class Device:
    """Notes what is launched on it."""

    launched: list[str] = field(default_factory=list)

    def load(self, source: str, name: str, *_: Any) -> FakeKernel:
        return FakeKernel(name)

    def launch(self, kernel: FakeKernel, *_: Any, **__: Any) -> Callable[..., None]:
        return lambda arguments, stream: self.launched.append(kernel.name)


@dataclass
class FakeKernel:
    name: str

    def resident_clusters(self, blocks: int) -> int:
        return 264 // blocks

    def cluster_size(self, clusters: int, most: int) -> int:
        return most


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """A device in whose place nothing happens; plans and launches are made anew."""
    fake, memory = Device(), torch.zeros(1)
    caches = cuda_decode.plan_for, cuda_pack._launch, cuda_merge._launch
    monkeypatch.setattr(cuda_compile, "runs_on", lambda device: True)
    monkeypatch.setattr(cuda_compile, "load", fake.load)
    monkeypatch.setattr(cuda_compile, "Launch", fake.launch)
    monkeypatch.setattr(cuda_compile, "current_stream", lambda device: 0)
    monkeypatch.setattr(cuda_pack, "supports", lambda x: True)
    monkeypatch.setattr(cuda_decode, "processors_of", lambda device: 132)
    monkeypatch.setattr(cuda_decode_fused, "processors_of", lambda device: 132)
    monkeypatch.setattr(cuda_decode_plan, "processors_of", lambda device: 132)
    monkeypatch.setattr(cuda_decode_fused._Mailboxes, "of", lambda *_: memory)
    monkeypatch.setattr(cuda_compile, "on", lambda device: nullcontext())
    for cache in caches:
        cache.cache_clear()
    yield fake
    for cache in caches:
        cache.cache_clear()


class Operations(TorchDispatchMode):
    """Counts what PyTorch is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.counts[str(function)] += 1
        return function(*args, **(kwargs or {}))


@dataclass
class Layer:
    """One layer in the midst of a text, padded in front or not."""

    recent: int = 0
    n: TopN = 64
    scale: str = "head_scale"
    masked: bool = False

    def __post_init__(self) -> None:
        options = AttentionOptions(n=self.n, scale=self.scale, recent=self.recent)
        self.core = HammingAttention(AttentionGeometry("l", HEADS, GROUPS, WIDTH), options).eval()
        self.cache = BinaryKeyLayer(recent=self.recent)
        self.cache.update(self.states(GROUPS, CONTEXT), self.states(GROUPS, CONTEXT))
        self.mask = torch.ones(1, 1, 1, 4 * CONTEXT) > 0

    @staticmethod
    def states(heads: int, tokens: int = 1) -> Tensor:
        return torch.randn(1, tokens, heads, WIDTH).to(torch.bfloat16).transpose(1, 2)

    def step(self) -> None:
        query, key, value = (self.states(heads) for heads in (HEADS, GROUPS, GROUPS))
        mask = self.mask[..., : self.cache.get_seq_length() + 1] if self.masked else None
        with Operations() as operations, torch.inference_mode():
            words, values = self.cache.update(key, value)
            self.core(query, words, values, mask=mask)
        self.counts = operations.counts


LAUNCHES = ["pack_signs", "pack_signs", "attend"]  # a token into the cache, a query, attention


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scale", ["frozen_sigma", "head_scale"])
@pytest.mark.parametrize("n", [64, 0.05])
def test_a_token_is_three_launches_and_no_other_work(
    device: Device, masked: bool, scale: str, n: TopN
) -> None:
    layer = Layer(n=n, scale=scale, masked=masked)
    layer.step()
    device.launched.clear()
    layer.step()
    assert device.launched == LAUNCHES
    assert set(layer.counts) <= VIEWS | ALLOCATIONS | NOTHING
    assert layer.counts.total() <= 5


@pytest.mark.parametrize("masked", [False, True])
def test_exact_keys_bring_one_launch_and_one_copy(device: Device, masked: bool) -> None:
    """And a sum over the mask where there is one."""
    layer = Layer(recent=16, masked=masked)
    layer.step()
    device.launched.clear()
    layer.step()
    work = Counter({"aten.copy_.default": 1, "aten.sum.dim_IntList": int(masked)})
    others = VIEWS | ALLOCATIONS | NOTHING
    assert device.launched == [*LAUNCHES, "merge"]
    assert Counter({x: n for x, n in layer.counts.items() if x not in others}) == +work
    assert layer.counts.total() <= 20


@pytest.mark.parametrize("recent", [0, 16])
@pytest.mark.parametrize("n", [64, 0.05])
def test_a_plan_is_made_once_in_hundreds_of_tokens(device: Device, n: TopN, recent: int) -> None:
    layer = Layer(n=64 if recent else n, recent=recent)
    for _ in range(700):  # through two lengths that are planned for, and larger buffers
        layer.step()
    assert cuda_decode.plan_for.cache_info().misses <= 4
