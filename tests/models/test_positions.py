"""Tables of learned positions, made longer."""

from __future__ import annotations

import pytest
import torch

from had.errors import HadError
from had.models.positions import METHODS, extend, interpolated, tiled
from tests.models import zoo

TABLE = torch.tensor([[0.0, 3.0], [2.0, 1.0], [4.0, 0.0]])


def test_interpolation_keeps_both_ends_and_halves_between() -> None:
    found = interpolated(TABLE, 5)
    wanted = [[0.0, 3.0], [1.0, 2.0], [2.0, 1.0], [3.0, 0.5], [4.0, 0.0]]
    torch.testing.assert_close(found, torch.tensor(wanted))


def test_tiles_begin_again() -> None:
    assert torch.equal(tiled(TABLE, 7), TABLE[[0, 1, 2, 0, 1, 2, 0]])


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_a_longer_encoder_reads_longer_sequences(method: str) -> None:
    model = zoo.build("bert")
    old = model.config.max_position_embeddings
    tokens = torch.ones(1, old + 5, dtype=torch.long)
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=tokens)
    extend(model, old + 5, METHODS[method])
    assert model(input_ids=tokens).logits.isfinite().all()
    assert model.config.max_position_embeddings == old + 5


@torch.no_grad()
def test_tiling_changes_nothing_within_the_old_length() -> None:
    model = zoo.build("bert")
    tokens = torch.ones(1, model.config.max_position_embeddings, dtype=torch.long)
    before = model(input_ids=tokens).logits
    extend(model, 2 * tokens.shape[1], tiled)
    torch.testing.assert_close(model(input_ids=tokens).logits, before)


@pytest.mark.parametrize("name", ["llama", "roberta"])
def test_models_without_a_plain_table_are_refused(name: str) -> None:
    """Rotary positions have none; RoBERTa's begins with rows that are no positions."""
    with pytest.raises(HadError, match="no plain table of learned positions"):
        extend(zoo.build(name), 512, tiled)
