"""Signs as bits: the layout by hand, and attention from bits equal to the oracle."""

from __future__ import annotations

import pytest
import torch

from had.attention.backends import BACKENDS, PackedCall, choose_packed_backend
from had.attention.bits import pack_signs, pack_signs_into, unpack_signs
from had.attention.functional import binarize, hamming_attention, match_counts
from had.attention.topn import ScaledN, TopN


def test_layout_by_hand() -> None:
    x = -torch.ones(34)
    x[0] = x[3] = x[31] = x[33] = 0.0  # zero is positive
    assert pack_signs(x).tolist() == [1 + 8 - 2**31, 2]


@pytest.mark.parametrize("width", [1, 31, 32, 33, 64, 80, 128])
def test_unpacking_gives_the_signs_back(width: int) -> None:
    x = torch.randn(2, 3, width, generator=torch.Generator().manual_seed(width))
    words = pack_signs(x)
    assert words.dtype == torch.int32
    assert words.shape == (2, 3, -(-width // 32))
    assert torch.equal(unpack_signs(words, width), binarize(x))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gpus_pack_as_cpus_do(dtype: torch.dtype) -> None:
    x = torch.randn(2, 70, 3, 96).to(dtype).transpose(1, 2)
    x[0, 0, 0, :4] = torch.tensor([0.0, -0.0, torch.inf, torch.nan])
    wanted = pack_signs(x)
    assert torch.equal(pack_signs(x.cuda()).cpu(), wanted)
    buffer = torch.zeros(2, 3, 80, 3, dtype=torch.int32, device="cuda")
    pack_signs_into(buffer[:, :, 5:75], x.cuda())
    assert torch.equal(buffer[:, :, 5:75].cpu(), wanted)
    assert not buffer[:, :, :5].any()
    assert not buffer[:, :, 75:].any()


@pytest.mark.parametrize("width", [20, 64])
def test_differing_bits_are_the_hamming_distance(width: int) -> None:
    query, key = torch.randn(2, 5, width, generator=torch.Generator().manual_seed(1))
    differing = pack_signs(query)[:, None] ^ pack_signs(key)[None]
    count = [
        [sum(bin(w & 0xFFFFFFFF).count("1") for w in pair) for pair in row]
        for row in differing.tolist()
    ]
    assert torch.equal(width - torch.tensor(count), match_counts(query, key).long())


@pytest.mark.parametrize("name", [name for name in BACKENDS if name in ("eager", "reference")])
@pytest.mark.parametrize("n", [3, 0.25, ScaledN(0.25, 2)])
def test_attention_from_bits_equals_the_oracle(name: str, n: TopN) -> None:
    generator = torch.Generator().manual_seed(2)
    query = torch.randn(2, 4, 3, 40, generator=generator)
    key = torch.randn(2, 2, 17, 40, generator=generator)
    value = torch.randn(2, 2, 17, 8, generator=generator)
    mask = torch.rand(2, 1, 3, 17, generator=generator) > 0.3
    call = PackedCall(pack_signs(query), pack_signs(key), value, 40, n, 40**-0.5, mask)
    wanted = hamming_attention(query, key, value, n=n, sigma_query=1.0, sigma_key=1.0, mask=mask)
    output = choose_packed_backend(name, call).attend_packed(call)
    torch.testing.assert_close(output, wanted)


def test_one_key_and_the_share_of_all_are_told_apart() -> None:
    """1 and 1.0 are equal to Python, and so to a cache that does not look at types."""
    generator = torch.Generator().manual_seed(3)
    query, key = (torch.randn(1, 1, 11, 32, generator=generator) for _ in range(2))
    value = torch.randn(1, 1, 11, 8, generator=generator)
    for n in (1, 1.0, 1):
        call = PackedCall(pack_signs(query), pack_signs(key), value, 32, n, 32**-0.5)
        wanted = hamming_attention(query, key, value, n=n, sigma_query=1.0, sigma_key=1.0)
        torch.testing.assert_close(choose_packed_backend("auto", call).attend_packed(call), wanted)
