"""The binary key cache by itself: what it stores, how it grows, and what it takes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, LlamaConfig, MistralConfig, Qwen3NextConfig

import had
from had.attention.bits import pack_signs, unpack_signs
from had.attention.cache_layers import BinaryKeyLayer, SlidingBinaryKeyLayer
from had.attention.functional import binarize
from had.errors import HadError


def tokens(count: int, head_dim: int = 40, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Keys (2, 3, count, head_dim) and values (2, 3, count, 8)."""
    generator = torch.Generator().manual_seed(seed)
    key = torch.randn(2, 3, count, head_dim, generator=generator)
    return key, torch.randn(2, 3, count, 8, generator=generator)


def pieces(key: Tensor, value: Tensor, sizes: list[int]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(key.split(sizes, dim=2), value.split(sizes, dim=2), strict=True))


@pytest.mark.parametrize("sizes", [[300], [1] * 300, [7, 200, 1, 1, 91]])
def test_tokens_come_back_as_signs_and_values(sizes: list[int]) -> None:
    key, value = tokens(300)
    layer, seen = BinaryKeyLayer(), 0
    for new_key, new_value in pieces(key, value, sizes):
        assert layer.get_mask_sizes(new_key.shape[2]) == (seen + new_key.shape[2], 0)
        words, values = layer.update(new_key, new_value)
        seen += new_key.shape[2]
        assert torch.equal(words, pack_signs(key[:, :, :seen]))
        assert torch.equal(values, value[:, :, :seen])
    assert torch.equal(unpack_signs(layer.keys, 40), binarize(key))
    assert layer.get_seq_length() == 300


def test_a_step_copies_nothing_but_its_own_token() -> None:
    """Over 4000 steps the buffers move a few times, by a quarter each; attention gets views."""
    key, value = tokens(4000, head_dim=32)
    layer, places = BinaryKeyLayer(), []
    for step in pieces(key, value, [1] * 4000):
        words, values = layer.update(*step)
        places.append((words.data_ptr(), values.data_ptr()))
    moves = sum(before != after for before, after in pairwise(places))
    assert moves <= 20  # 64 * 1.25 ** n >= 4000 at n = 19
    assert layer.allocated() <= 1.25 * layer.memory(4000)[0] + 64 * 2 * 3 * (4 + 32)


@pytest.mark.parametrize("recent", [0, 5])
def test_the_first_tokens_are_not_kept_alive(recent: int) -> None:
    """Neither keys nor values of a prompt outlive it, not even as the memory behind a view."""
    key, value = tokens(300)
    layer = BinaryKeyLayer(recent=recent)
    first = layer.update(key.clone(), value.clone())
    del first
    held = [x for x in vars(layer).values() if isinstance(x, Tensor)]
    held += [x.exact for x in held if hasattr(x, "exact")]
    memories = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in held}
    assert sum(memories.values()) <= layer.allocated() + 2 * 3 * 2 * (recent + 64) * 40 * 4
    assert sum(memories.values()) < key.nbytes + 1.5 * value.nbytes


@pytest.mark.parametrize(
    "sizes", [[300], [1] * 300, [7, 200, 1, 1, 91], [3, 1, 60, 1, 1, 2, 100, 132]]
)
def test_the_last_keys_stay_exact_through_all_steps(sizes: list[int]) -> None:
    """Those of the new tokens and of the four before them, as they came; crops included."""
    key, value = tokens(300)
    layer, seen = BinaryKeyLayer(recent=5), 0
    for new_key, new_value in pieces(key, value, sizes):
        new = new_key.shape[2]
        words, _ = layer.update(new_key, new_value)
        seen += new
        assert torch.equal(words.exact, key[:, :, max(0, seen - new - 4) : seen])
        back = min(new, 20)
        layer.crop(-back)
        again = slice(seen - back, seen)
        words, _ = layer.update(key[:, :, again], value[:, :, again])
        assert torch.equal(words.exact, key[:, :, max(0, seen - back - 4) : seen])
    layer.reorder_cache(torch.tensor([1, 0]))
    words, _ = layer.update(key[[1, 0], :, :1], value[[1, 0], :, :1])
    assert torch.equal(words.exact[:, :, :4], key[[1, 0], :, 296:])
    with pytest.raises(ValueError, match="exact keys of the tokens before are gone"):
        layer.crop(-200)


def test_cropping_sequences_and_tokens() -> None:
    key, value = tokens(20)
    layer = BinaryKeyLayer()
    layer.update(key, value)
    layer.crop(-6)
    layer.reorder_cache(torch.tensor([1, 1]))
    assert torch.equal(layer.keys, pack_signs(key[[1, 1], :, :14]))
    words, values = layer.update(key[:, :, 14:], value[:, :, 14:])
    assert torch.equal(values[0, :, :14], value[1, :, :14])
    assert torch.equal(words[:, :, 14:], pack_signs(key[:, :, 14:]))
    layer.batch_repeat_interleave(3)
    assert torch.equal(layer.values[:3, :, 14:], value[:1, :, 14:].expand(3, -1, -1, -1))
    layer.batch_select_indices(torch.tensor([5, 0]))
    assert torch.equal(layer.values[:, :, 14:], value[[1, 0], :, 14:])


def test_cropping_more_than_there_is_or_to_a_length_is_refused() -> None:
    layer = BinaryKeyLayer()
    layer.crop(-3)  # nothing there yet, as in transformers
    layer.update(*tokens(5))
    with pytest.raises(ValueError, match=r"crop\(-6\): only 5 tokens"):
        layer.crop(-6)
    with pytest.raises(ValueError, match="as -n"):
        layer.crop(2)


def test_a_reset_cache_takes_another_batch() -> None:
    cache = had.BinaryKeyCache()
    cache.update(*tokens(9), 0)
    cache.reset()
    assert cache.get_seq_length() == 0
    key, value = (x[:1] for x in tokens(4))
    words, _ = cache.update(key, value, 0)
    assert torch.equal(words, pack_signs(key))


@pytest.mark.parametrize("sizes", [[30], [1] * 30, [3, 9, 1, 1, 16]])
def test_a_window_gives_what_transformers_own_gives(sizes: list[int]) -> None:
    config = MistralConfig(sliding_window=6, num_hidden_layers=1)
    theirs, ours = DynamicCache(config=config), had.BinaryKeyCache(config)
    for new_key, new_value in pieces(*tokens(30), sizes):
        count = new_key.shape[2]
        assert ours.get_mask_sizes(count, 0) == theirs.get_mask_sizes(count, 0)
        words, values = ours.update(new_key, new_value, 0)
        wanted_key, wanted_value = theirs.update(new_key, new_value, 0)
        assert torch.equal(words, pack_signs(wanted_key))
        assert torch.equal(values, wanted_value)
    assert ours.is_sliding == [True]
    assert ours.get_seq_length() == theirs.get_seq_length() == 30


def test_a_window_forgets_what_it_left() -> None:
    layer = SlidingBinaryKeyLayer(window=100)
    key, value = tokens(3000, head_dim=32)
    for step in pieces(key, value, [1] * 3000):
        layer.update(*step)
    assert layer.allocated() <= 2 * 3 * (4 + 32) * (1.25 * 101 + 64)


def test_a_window_goes_back_behind_a_guess_only_if_it_was_told_to() -> None:
    key, value = tokens(30)
    layer = SlidingBinaryKeyLayer(window=6)
    layer.update(key[:, :, :20], value[:, :, :20])
    layer.activate_past_recording()
    for at in range(20, 28):
        words, _ = layer.update(key[:, :, at : at + 1], value[:, :, at : at + 1])
        assert torch.equal(words, pack_signs(key[:, :, at - 5 : at + 1]))
    layer.crop(-7)
    layer.record_past = False
    words, _ = layer.update(key[:, :, 21:24], value[:, :, 21:24])
    assert torch.equal(words, pack_signs(key[:, :, 16:24]))
    layer.update(key[:, :, 24:25], value[:, :, 24:25])
    with pytest.raises(ValueError, match="activate_past_recording"):
        layer.crop(-4)


@pytest.mark.parametrize(
    ("dtype", "ratio"), [(None, (8 + 128) / 256), (torch.float8_e4m3fn, (8 + 64) / 256)]
)
def test_memory_by_hand(dtype: torch.dtype | None, ratio: float) -> None:
    """Heads of 64: 8 bytes for 64 signs, 2 or 1 for each of 64 values, against 2 for all 128."""
    cache = had.BinaryKeyCache(value_dtype=dtype)
    for layer in range(3):
        cache.update(*(torch.randn(2, 4, 10, 64).bfloat16() for _ in range(2)), layer)
    now, later = cache.memory(), cache.memory(131072)
    assert now.dense == 3 * 2 * 4 * 10 * 256
    assert now.ratio == later.ratio == ratio
    assert later.binary == ratio * 256 * 3 * 2 * 4 * 131072
    assert str(later).startswith("131072 tokens: ")
    assert cache.allocated() >= now.binary
    assert sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers) == now.binary


def test_a_window_takes_no_more_than_itself() -> None:
    cache = had.BinaryKeyCache(MistralConfig(sliding_window=101, num_hidden_layers=1))
    cache.update(*tokens(1), 0)
    assert cache.memory(131072).binary == cache.memory(100).binary == 100 * 6 * (8 + 32)


def test_an_empty_cache_knows_no_sizes() -> None:
    for cache in (had.BinaryKeyCache(), had.BinaryKeyCache(LlamaConfig(num_hidden_layers=1))):
        with pytest.raises(HadError, match="empty"):
            cache.memory()


def test_eight_bit_values_are_the_nearest_and_never_infinite() -> None:
    key, value = tokens(4)
    value[0, 0, 0, 0], value[0, 0, 0, 1] = 1e4, -1e4
    _, stored = BinaryKeyLayer(torch.float8_e4m3fn).update(key, value)
    assert stored.dtype == torch.float8_e4m3fn
    assert stored[0, 0, 0, :2].tolist() == [448.0, -448.0]
    # Three bits of mantissa: half a step is a sixteenth; below 2**-6 steps are 2**-9.
    error = (stored.float() - value.clamp(-448, 448)).abs()
    assert (error <= torch.maximum(value.abs() / 16, torch.tensor(2.0**-10))).all()


def test_layers_that_keep_something_else_are_refused() -> None:
    with pytest.raises(HadError, match="LinearAttentionLayer"):
        had.BinaryKeyCache(Qwen3NextConfig(num_hidden_layers=4))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("value_dtype", [None, torch.float8_e4m3fn])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_gpu_stores_what_a_cpu_stores(
    dtype: torch.dtype, value_dtype: torch.dtype | None
) -> None:
    """Tokens as projections give them: heads of a token side by side."""
    here, there = BinaryKeyLayer(value_dtype), BinaryKeyLayer(value_dtype)
    key, value = (
        x.to(dtype).transpose(1, 2).contiguous().transpose(1, 2) for x in tokens(300, head_dim=64)
    )
    for new_key, new_value in pieces(key, value, [200, 1, 1, 7, 91]):
        expected = here.update(new_key, new_value)
        found = there.update(new_key.cuda(), new_value.cuda())
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one.cpu().float(), other.float())
