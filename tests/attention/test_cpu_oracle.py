"""The CPU kernels against the oracle: kept keys, outputs, masks, layouts, types of values.

`test_cpu_targets.py` runs this file again for lesser instruction sets.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from had.attention.backends import BACKENDS, AttentionCall, PackedCall
from had.attention.bits import pack_signs
from had.attention.functional import binarize

pytest.importorskip("numba")
CPU, REFERENCE = BACKENDS["cpu"], BACKENDS["reference"]
KEYS = (1, 7, 64, 197, 1000)


def signs(*shape: int, seed: int = 0) -> Tensor:
    return binarize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))


def normal(*shape: int, seed: int = 9) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def packed(call: AttentionCall) -> PackedCall:
    rest = (call.value, call.query.shape[-1], call.n, call.gain, call.mask)
    return PackedCall(pack_signs(call.query), pack_signs(call.key), *rest)


def check(call: AttentionCall) -> Tensor:
    """The output, from floats and from bits, after comparison with the oracle's."""
    bits = packed(call)
    assert CPU.supports(call)
    assert CPU.supports_packed(bits)
    output, expected = CPU.attend(call), REFERENCE.attend(call)
    assert output.dtype == call.value.dtype
    torch.testing.assert_close(output, expected)
    assert torch.equal(CPU.attend_packed(bits), output)
    return output


def check_kept_keys(
    query: Tensor, key: Tensor, n: int | float, mask: Tensor | None = None, gain: float = 0.02
) -> None:
    """The identity as values gives the map of weights, zero where a key is not kept."""
    keys = key.shape[2]
    value = torch.eye(keys).expand(*key.shape[:2], keys, keys)
    call = AttentionCall(query, key, value, n, gain, mask, signs=True)
    assert torch.equal(check(call) > 0, REFERENCE.attend(call) > 0)


@pytest.mark.parametrize("width", [1, 20, 32, 64, 80, 128, pytest.param(256, id="two-byte-scores")])
@pytest.mark.parametrize("n", [16, 0.07, 1000])
def test_random_signs(width: int, n: int | float) -> None:
    for keys in KEYS:
        check_kept_keys(signs(1, 2, 6, width), signs(1, 2, keys, width, seed=1), n)


@pytest.mark.parametrize("distinct", [1, 16])
@pytest.mark.parametrize("n", [1, 5, 64, 0.5])
def test_equal_scores_keep_the_lowest_index(distinct: int, n: int | float) -> None:
    few = signs(1, 1, distinct, 64)
    choice = torch.randint(0, distinct, (300,), generator=torch.Generator().manual_seed(2))
    check_kept_keys(signs(1, 2, 5, 64, seed=3), few[:, :, choice], n)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_extreme_scores(sign: float) -> None:
    """Queries that equal half of the keys in every bit, or in none, in either width of a score."""
    for width in (253, 254, 64):
        key = torch.cat([signs(1, 1, 1, width).expand(1, 1, 70, width), signs(1, 1, 70, width)], 2)
        for n in (3, 72, 140):
            check_kept_keys(sign * key[:, :, :3], key, n)


def test_thresholds_that_jump_from_row_to_row() -> None:
    """Every row's threshold lies elsewhere, so that the search has to go both ways."""
    key = signs(1, 1, 1, 128).repeat(1, 1, 500, 1)
    flips = torch.arange(500) % 128
    for i, flip in enumerate(flips.tolist()):
        key[0, 0, i, :flip] *= -1
    query = key[:, :, torch.randperm(500, generator=torch.Generator().manual_seed(4))[:40]]
    for n in (1, 30, 499):
        check_kept_keys(query, key, n)


def masks(batch: int, heads: int, queries: int, keys: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    causal = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
    lengths = torch.randint(1, keys + 1, (batch, 1, 1, 1), generator=generator)
    padding = torch.arange(keys) < lengths
    sparse = torch.rand(batch, heads, queries, keys, generator=generator) > 0.97
    sparse[0, 0, :3] = False
    return {
        "causal": causal,
        "padding": padding,
        "padding left": padding.flip(-1),
        "causal and padding": causal & padding,
        "rows without a key": sparse,
        "by head": sparse[:1, :, :1],
        "transposed": sparse.transpose(2, 3).contiguous().transpose(2, 3),
        "one key": torch.ones(batch, 1, queries, 1, dtype=torch.bool),
    }


@pytest.mark.parametrize("kind", list(masks(1, 1, 1, 1)))
@pytest.mark.parametrize("keys", [70, 197])
@pytest.mark.parametrize("n", [9, 0.3])
def test_masks(kind: str, keys: int, n: int | float) -> None:
    mask = masks(2, 4, 66, keys)[kind]
    query, key = signs(2, 4, 66, 64), signs(2, 2, keys, 64, seed=1)
    check_kept_keys(query, key, n, mask)
    call = AttentionCall(query, key, normal(2, 2, keys, 24), n, 0.125, mask, signs=True)
    forbidden = ~mask.expand(2, 4, 66, keys).any(-1)
    assert check(call)[forbidden].eq(0).all()


@pytest.mark.parametrize("queries", [1, 2, 40])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (8, 1), (6, 2)])
def test_grouped_queries_and_gains_by_head(queries: int, heads: tuple[int, int]) -> None:
    query, key = signs(2, heads[0], queries, 128), signs(2, heads[1], 150, 128, seed=1)
    value = normal(2, heads[1], 150, 128)
    for shape in ((), (1,), (heads[0], 1, 1), (2, 1, 1, 1), (2, heads[0], 1, 1)):
        gain = torch.rand(shape, generator=torch.Generator().manual_seed(6)) + 0.05
        check(AttentionCall(query, key, value, 20, gain, signs=True))


@pytest.mark.parametrize("width", [40, 64, 128])
@pytest.mark.parametrize("queries", [1, 3, 8, 9])
def test_few_queries_score_whole_words(queries: int, width: int) -> None:
    """Few queries count bits of adjacent keys by the word, of keys that lie apart by planes."""
    query, key, value = signs(1, 2, queries, width), signs(1, 2, 333, width, seed=1), torch.eye(333)
    check_kept_keys(query, key, 50, normal(queries, 333) > -0.5)
    call = packed(AttentionCall(query, key, value.expand(1, 2, 333, 333), 50, 0.02, signs=True))
    apart = torch.nn.functional.pad(call.key, (0, 1))[..., : call.key.shape[3]]
    assert torch.equal(CPU.attend_packed(call), CPU.attend_packed(replace(call, key=apart)))


def test_keys_beyond_the_last_are_not_read() -> None:
    """The same keys at the end of a buffer, and before others that would win."""
    query, key = signs(1, 1, 1, 64), signs(1, 1, 130, 64, seed=1)
    call = packed(AttentionCall(query, key, normal(1, 1, 130, 16), 5, 0.1, signs=True))
    longer = torch.cat([call.key, call.query.expand(1, 1, 62, 2)], 2)[:, :, :130]
    assert torch.equal(CPU.attend_packed(call), CPU.attend_packed(replace(call, key=longer)))


@pytest.mark.parametrize("width", [1, 5, 16, 20, 64, 72, 80, 128, 200])
def test_widths_of_values(width: int) -> None:
    query, key = signs(1, 2, 5, 64), signs(1, 2, 90, 64, seed=1)
    check(AttentionCall(query, key, normal(1, 2, 90, width), 12, 0.1, signs=True))


def test_views_into_larger_buffers() -> None:
    """A cache's buffers in the order (B, S, G, ...), longer and wider than what is in use."""
    query, key = signs(2, 4, 3, 128), signs(2, 2, 130, 128, seed=1)
    words = torch.full((2, 300, 3, 6), -1, dtype=torch.int32)
    values = torch.full((2, 300, 3, 70), math.nan)
    words[:, 20:150, 1:, 1:5] = pack_signs(key).transpose(1, 2)
    values[:, 20:150, 1:, 2:66] = normal(2, 130, 2, 64)
    views = (words[:, 20:150, 1:, 1:5].transpose(1, 2), values[:, 20:150, 1:, 2:66].transpose(1, 2))
    call = PackedCall(pack_signs(query), *views, 128, 16, 0.1)
    torch.testing.assert_close(CPU.attend_packed(call), REFERENCE.attend_packed(call))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_narrow_value_is_read_exactly(dtype: torch.dtype) -> None:
    """Queries that are one key each, and n = 1: the output is that key's value, to the last bit."""
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    value = every.reshape(1, 1, 1024, 64)
    key = signs(1, 1, 1024, 64)
    output = CPU.attend(AttentionCall(key, key, value, 1, 0.1, signs=True))
    torch.testing.assert_close(output, value, rtol=0, atol=0, equal_nan=True)
    check(AttentionCall(key, key, normal(1, 1, 1024, 64).to(dtype), 30, 0.1, signs=True))


def test_packing_equals_the_reference() -> None:
    from had.attention.backends import cpu_launch

    for width in (1, 31, 32, 33, 64, 100, 128, 191):
        x = normal(2, 3, 5, width)
        x[0, 0, 0, 0], x[0, 0, 1, 0], x[0, 0, 2, 0] = 0.0, -0.0, math.nan
        for given in (x, x.to(torch.bfloat16), x.double(), x.transpose(1, 2)):
            assert torch.equal(cpu_launch.pack(given), pack_signs(given))
