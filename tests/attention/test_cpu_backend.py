"""The CPU backend among the others: what it takes, threads, and whole models."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

import had
from had.attention import backends
from had.attention.backends import BACKENDS, AttentionCall, PackedCall, choose_backend, cpu
from had.attention.module import hamming_layers
from tests.attention.test_cpu_oracle import CPU, normal, packed, signs
from tests.models.zoo import ZOO


def call(**changes: object) -> AttentionCall:
    query, key = signs(1, 2, 5, 64), signs(1, 2, 40, 64, seed=1)
    return replace(AttentionCall(query, key, normal(1, 2, 40, 32), 8, 0.1, signs=True), **changes)


@pytest.fixture
def fresh() -> Iterator[None]:
    """Without the memory of whether kernels can be compiled."""
    cpu._ready.cache_clear()
    yield
    cpu._ready.cache_clear()


def test_auto_takes_it_for_inference_alone() -> None:
    assert choose_backend("auto", call()) is CPU
    trained = call(value=normal(1, 2, 40, 32).requires_grad_())
    assert choose_backend("auto", trained) is BACKENDS["eager"]
    with torch.no_grad():
        assert choose_backend("auto", trained) is CPU


@pytest.mark.parametrize(
    "changes",
    [
        {"signs": False},
        {"weights": "binary"},
        {"bias": torch.zeros(1, 1, 5, 40)},
        {"value": normal(1, 2, 40, 32).double()},
        {"mask": torch.zeros(1, 1, 1, 40)},
        {"value": normal(1, 2, 40, 32).to("meta")},
    ],
    ids=["relaxed", "other weights", "bias", "float64", "mask of floats", "other device"],
)
def test_what_it_cannot_do_goes_elsewhere(changes: dict[str, object]) -> None:
    assert not CPU.supports(call(**changes))


def test_without_numba_one_warning_and_the_eager_backend(
    fresh: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in [name for name in sys.modules if name.startswith(f"{backends.__name__}.cpu_")]:
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(backends, name.rpartition(".")[2])
    monkeypatch.setitem(sys.modules, "numba", None)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert choose_backend("auto", call()) is BACKENDS["eager"]
    assert len(caplog.records) == 1
    assert "numba" in caplog.text


@pytest.mark.parametrize("causal", [False, True])
def test_results_do_not_depend_on_the_number_of_threads(causal: bool) -> None:
    query, key = signs(2, 4, 100, 64), signs(2, 2, 300, 64, seed=1)
    mask = torch.ones(100, 300, dtype=torch.bool).tril(200) if causal else None
    given = AttentionCall(query, key, normal(2, 2, 300, 64), 30, 0.1, mask, signs=True)
    before, outputs = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            outputs += [CPU.attend(given), CPU.attend_packed(packed(given))]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(output, outputs[0]) for output in outputs)


@pytest.mark.parametrize("name", ["bert", "llama", "timm_vit"])
def test_models_give_the_reference_logits(name: str) -> None:
    specimen = ZOO[name]
    torch.manual_seed(0)
    model, inputs = specimen.build().eval(), specimen.inputs()
    had.binarize(model, 3, calibration=[inputs])
    logits = {}
    for backend in ("reference", "cpu"):
        for layer in hamming_layers(model):
            layer.options = replace(layer.options, backend=backend)
        with torch.no_grad():
            output = model(**inputs) if "input_ids" in inputs else model(*inputs.values())
        logits[backend] = output if isinstance(output, torch.Tensor) else output.logits
    torch.testing.assert_close(logits["cpu"], logits["reference"])


def test_a_call_without_keys_is_left_to_others() -> None:
    query, key = (torch.zeros(1, 1, length, 2, dtype=torch.int32) for length in (3, 0))
    assert not CPU.supports_packed(PackedCall(query, key, torch.zeros(1, 1, 0, 16), 64, 4, 0.1))
