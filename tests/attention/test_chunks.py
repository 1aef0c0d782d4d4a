"""Long rows are worked off in chunks: the oracle's results and gradients, in linear memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from had.attention import functional
from had.attention.backends import AttentionCall
from had.attention.backends.eager import EagerBackend, ReferenceBackend
from had.attention.backends.triton_rows import MAX_KEYS
from had.attention.divergence import AttentionTarget, mean_over_real_rows, row_divergence
from had.attention.topn import ScaledN

CAUSAL = torch.ones(21, 21, dtype=torch.bool).tril()
PADDING = (torch.arange(21) < torch.tensor([21, 8])[:, None]).reshape(2, 1, 1, 21)
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"mask": CAUSAL},
    "padding": {"mask": PADDING},
    "both": {"mask": CAUSAL & PADDING},
    "bias of rows": {"bias": torch.randn(1, 4, 21, 21)},
    "bias of keys": {"bias": torch.randn(1, 1, 1, 21), "mask": CAUSAL},
    "a share": {"n": ScaledN(0.2, 2), "mask": CAUSAL},
    "gain of rows": {"gain": 0.2 + torch.rand(2, 4, 21, 1)},
    "signs": {"signs": True, "mask": CAUSAL},
}


@dataclass(frozen=True)
class Material:
    """A call with gradients, its teacher, and which query rows are real."""

    call: AttentionCall
    target: AttentionTarget
    real: Tensor

    def leaves(self) -> list[Tensor]:
        return [self.call.query, self.call.key, self.call.value, self.call.gain]


def material(length: int = 21, batch: int = 2, **changes: Any) -> Material:
    """Four query heads on two key heads, eight wide."""
    generator = torch.Generator().manual_seed(0)

    def random(heads: int) -> Tensor:
        return torch.randn(batch, heads, length, 8, generator=generator)

    query, key, value = random(4), random(2), random(2)
    if changes.get("signs"):
        query, key = functional.binarize(query), functional.binarize(key)
    gain = changes.pop("gain", torch.full((1, 4, 1, 1), 0.4))
    tensors = [x.clone().requires_grad_() for x in (query, key, value, gain)]
    call = AttentionCall(*tensors[:3], n=changes.pop("n", 5), gain=tensors[3], **changes)
    target = AttentionTarget(random(4), random(2), 0.3, call.bias)
    return Material(call, target, torch.rand(batch, 1, length, 1, generator=generator) > 0.2)


def oracle(m: Material) -> tuple[Tensor, Tensor]:
    """Output and divergence, all rows at once."""
    call = m.call
    scores = functional.attention_scores(call.query, call.key, gain=call.gain, bias=call.bias)
    output = functional.attend_to_scores(scores, call.value, call.n, call.mask)
    rows = row_divergence(scores, m.target.scores(), call.mask)
    return output, mean_over_real_rows(rows, m.real)


def gradients(m: Material, result: tuple[Tensor, ...]) -> list[Tensor]:
    weight = torch.linspace(-1, 1, result[0].numel()).view_as(result[0])
    total = (result[0] * weight).sum() + 3 * sum(result[1:])
    return list(torch.autograd.grad(total, m.leaves(), retain_graph=True))


@pytest.mark.parametrize("kind", [EagerBackend, ReferenceBackend])
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("rows", [1, 4, 7])
def test_chunks_give_the_oracles_results_and_gradients(
    kind: type[EagerBackend], name: str, rows: int
) -> None:
    m = material(**VARIANTS[name])
    backend = kind(map_elements=2 * 4 * 21 * rows)
    assert len(backend._chunks(m.call)) == -(-21 // rows)
    wanted, got = oracle(m), backend.distil(m.call, m.target, m.real)
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(gradients(m, got), gradients(m, wanted))
    attended = backend.attend(m.call)
    torch.testing.assert_close(attended, wanted[0])
    torch.testing.assert_close(gradients(m, (attended,)), gradients(m, wanted[:1]))


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that operations make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if _is_tensor(x)}
        for storage in (x.untyped_storage() for x in tree_leaves(result) if _is_tensor(x)):
            if storage._cdata not in given and storage._cdata not in self.live:
                self.live[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.live.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self.live.values()))
        return result


def _is_tensor(x: Any) -> bool:
    return isinstance(x, Tensor)


@contextmanager
def live_bytes() -> Iterator[LiveBytes]:
    with LiveBytes() as counter:
        yield counter


def peak_of_a_step(length: int, backend: EagerBackend, distil: bool = True) -> int:
    """The most bytes at a time in a step of distillation, or of training on the output alone."""
    mask = torch.ones(length, length, dtype=torch.bool).tril()
    m = material(length, batch=1, mask=mask)
    with live_bytes() as counter:
        if distil:
            output, divergence = backend.distil(m.call, m.target, None)
            (output.sum() + divergence).backward()
        else:
            backend.attend(m.call).sum().backward()
    return counter.peak


@pytest.mark.parametrize("distil", [True, False])
def test_memory_grows_linearly_with_the_length(distil: bool) -> None:
    """With a fixed budget for maps: a text twice as long takes at most twice the memory."""
    chunked = EagerBackend(map_elements=4 * 1024 * 8)
    short, middle, long = (peak_of_a_step(t, chunked, distil) for t in (256, 512, 1024))
    assert short < middle < long < 2 * middle < 4 * short + 2**16
    whole = EagerBackend()
    maps = [peak_of_a_step(t, whole, distil) for t in (256, 1024)]
    assert maps[1] > 14 * maps[0]  # the counter sees maps where there are some
    assert long < maps[1] / 8


def test_what_a_short_call_does_is_as_before() -> None:
    """One chunk, and no recomputation where rows are shorter than a query and a key."""
    m = material(length=15, batch=1)
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: saved.append(x.numel()) or x, lambda x: x
    ):
        EagerBackend().distil(m.call, m.target, None)
    assert max(saved) == 4 * 15 * 15
    assert len(EagerBackend()._chunks(m.call)) == 1


def test_long_texts_are_chunked_by_default() -> None:
    m = material(length=8)
    long = replace(m.call, key=torch.zeros(8, 8, 1, 8).expand(8, 8, 16384, 8))
    long = replace(long, query=torch.zeros(8, 8, 1, 8).expand(8, 8, 16384, 8))
    assert MAX_KEYS < 16384
    chunks = EagerBackend()._chunks(long)
    assert [chunk.stop - chunk.start for chunk in chunks] == [32] * 512
