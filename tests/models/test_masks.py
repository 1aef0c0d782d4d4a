"""The mask that students ask transformers for: never left out, and cheap for a single token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import masking_utils
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function

from had.attention import transformers
from had.attention.transformers import boolean_mask

PADDED = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1], [1, 1, 1, 1, 1, 1]]).bool()


def arguments(**changes: Any) -> dict[str, Any]:
    """Of the last of six tokens, of three sequences."""
    sizes = {"batch_size": 3, "q_length": 1, "kv_length": 6, "q_offset": 5, "kv_offset": 0}
    return sizes | {"mask_function": causal_mask_function, "attention_mask": PADDED} | changes


def theirs(given: dict[str, Any]) -> Tensor:
    mask = masking_utils.sdpa_mask(
        **given, allow_is_causal_skip=False, allow_is_bidirectional_skip=False
    )
    assert mask is not None
    return mask


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What transformers is asked for."""
    calls: list[dict[str, Any]] = []

    def note(**given: Any) -> Tensor | None:
        calls.append(given)
        return masking_utils.sdpa_mask(**given)

    monkeypatch.setattr(transformers, "sdpa_mask", note)
    return calls


def test_of_the_last_token_it_is_the_padding(asked: list[dict[str, Any]]) -> None:
    mask = boolean_mask(**arguments())
    assert mask is not None
    assert torch.equal(mask, theirs(arguments()))
    assert not asked


def test_where_nothing_is_padded_the_last_token_needs_none(asked: list[dict[str, Any]]) -> None:
    assert boolean_mask(**arguments(attention_mask=None)) is None
    assert theirs(arguments(attention_mask=None)).all()
    assert not asked


OTHERS = {
    "two tokens": {"q_length": 2, "q_offset": 4},
    "a prompt": {"q_length": 6, "q_offset": 0, "attention_mask": None},
    "room behind the token": {"q_offset": 3},
    "room behind the token, no padding": {"q_offset": 3, "attention_mask": None},
    "a window": {"mask_function": sliding_window_causal_mask_function(3)},
    "keys left out in front": {"q_offset": 8, "kv_offset": 3, "attention_mask": None},
    "an offset on the device": {"q_offset": torch.tensor(5)},
    "a mask that is too short": {"attention_mask": PADDED[:, :4]},
}


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
def test_all_others_are_made_by_transformers(
    changes: dict[str, Any], asked: list[dict[str, Any]]
) -> None:
    given = arguments(**changes)
    mask = boolean_mask(**given)
    assert mask is not None
    assert torch.equal(mask, theirs(given))
    assert len(asked) == 1
