"""Decoding steps reach the kernels that read bits, on a device that has them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

import had
from had.attention.backends import BACKENDS, PackedCall, cuda_compile
from had.attention.backends.cuda_decode import CudaDecodeBackend

PROMPT, STEPS = 9, 4


@dataclass
class Kernels:
    """Stands for the CUDA kernels on CPUs: keeps their calls, answers as plain PyTorch does."""

    calls: list[PackedCall] = field(default_factory=list)

    def attend_packed(self, call: PackedCall) -> Tensor:
        self.calls.append(call)
        return BACKENDS["eager"].attend_packed(call)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Kernels:
    """The stand-in, on a CPU that claims to be a device with kernels."""
    stand_in = Kernels()
    monkeypatch.setattr(cuda_compile, "runs_on", lambda device: True)
    monkeypatch.setattr(
        CudaDecodeBackend, "attend_packed", lambda self, call: stand_in.attend_packed(call)
    )
    return stand_in


def student(n: int | float, minimum: int = 1) -> nn.Module:
    """Two layers of two query heads to a key head of 64, converted to bfloat16 as a whole."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        vocab_size=50,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = had.binarize(LlamaForCausalLM(config), n, minimum=minimum)
    return model.to(torch.bfloat16).eval()


def padded_on_the_left() -> Tensor:
    """A mask of two texts, of which the second has three tokens less."""
    mask = torch.ones(2, PROMPT, dtype=torch.int64)
    mask[1, :3] = 0
    return mask


MASKS = {"none": None, "ones": torch.ones(2, PROMPT, dtype=torch.int64)}
MASKS["left padding"] = padded_on_the_left()


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize(("n", "minimum"), [(5, 1), (0.3, 1), (0.2, 4)])
def test_every_step_after_the_prompt(
    kernels: Kernels, mask: Tensor | None, n: int | float, minimum: int
) -> None:
    model = student(n, minimum)
    ids = torch.randint(1, 50, (2, PROMPT))
    model.generate(ids, attention_mask=mask, max_new_tokens=STEPS, do_sample=False)
    layers = model.config.num_hidden_layers
    assert [call.key.shape[2] for call in kernels.calls] == [
        PROMPT + step for step in range(1, STEPS) for _ in range(layers)
    ]
    allowed = torch.ones(2, PROMPT) if mask is None else mask
    for call in kernels.calls:
        seen = torch.ones(1, 1, 1, 1) > 0 if call.mask is None else call.mask
        seen = seen.expand(2, 1, 1, call.key.shape[2])[:, 0, 0]
        assert torch.equal(seen[:, :PROMPT], allowed.bool())
        assert seen[:, PROMPT:].all()


def test_steps_after_a_cache_of_the_users(kernels: Kernels) -> None:
    """As benchmarks measure them: the first new token's step comes after a filled cache."""
    model = student(5)
    cache, shape = had.BinaryKeyCache(model.config), (2, 2, 2048, 64)
    for layer in range(model.config.num_hidden_layers):
        cache.update(*torch.randn(2, *shape, dtype=torch.bfloat16), layer)
    ids = torch.randint(1, 50, (2, 2049))
    wishes = {"attention_mask": torch.ones_like(ids), "max_new_tokens": STEPS, "do_sample": False}
    model.generate(ids, past_key_values=cache, **wishes)
    assert [call.query.shape[2] for call in kernels.calls] == [1] * 2 * STEPS
