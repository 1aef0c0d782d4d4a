"""From strings to batches."""

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from had.errors import HadError
from had.tasks.base import EncodedDataset, identity
from had.tasks.text import PADDINGS, LabelledText, encode_text


@pytest.fixture(autouse=True)
def _padding_to_eights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small multiples, so that expected rows can be written out."""
    monkeypatch.setattr("had.tasks.text._MULTIPLE", 8)


def encode(
    texts: tuple[list[str], ...],
    tokenizer: PreTrainedTokenizerFast,
    padding: str = "longest",
    max_length: int = 16,
) -> EncodedDataset:
    text = LabelledText(texts, torch.arange(len(texts[0])))
    return encode_text(text, tokenizer, max_length=max_length, padding=PADDINGS[padding])


def test_single_sentences(tokenizer: PreTrainedTokenizerFast) -> None:
    batch = encode((["a b", "c"],), tokenizer).__getitems__([1, 0])
    inputs = batch["inputs"]
    assert inputs["input_ids"].tolist() == [[1, 6, 2, 0, 0, 0, 0, 0], [1, 4, 5, 2, 0, 0, 0, 0]]
    assert inputs["attention_mask"].tolist() == [[1] * 3 + [0] * 5, [1] * 4 + [0] * 4]
    assert {column.dtype for column in inputs.values()} == {torch.int64}
    assert batch["labels"].tolist() == [1, 0]


def test_pairs_have_token_types(tokenizer: PreTrainedTokenizerFast) -> None:
    inputs = encode((["a b"], ["c"]), tokenizer)[0]["inputs"]
    assert inputs["input_ids"].tolist() == [[1, 4, 5, 2, 6, 2, 0, 0]]
    assert inputs["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 0, 0]]


def test_token_types_are_left_out_where_the_model_has_none(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    assert set(encode((["a"],), tokenizer).inputs) == {"input_ids", "attention_mask"}


def test_a_batch_is_as_wide_as_its_longest_example_needs(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    data = encode((["a", "a " * 9, "b b"],), tokenizer)
    widths = [data.__getitems__(rows)["inputs"]["input_ids"].shape[1] for rows in ([0, 2], [0, 1])]
    assert widths == [8, 16]


def test_truncation_shortens_the_longer_side(tokenizer: PreTrainedTokenizerFast) -> None:
    inputs = encode((["a " * 20], ["b c"]), tokenizer, max_length=10)[0]["inputs"]
    assert inputs["input_ids"].tolist() == [[1, 4, 4, 4, 4, 4, 2, 5, 6, 2]]  # never wider than 10


def test_fixed_shapes(tokenizer: PreTrainedTokenizerFast) -> None:
    inputs = encode((["a", "b"],), tokenizer, padding="max_length")[0]["inputs"]
    assert inputs["input_ids"].tolist() == [[1, 4, 2] + [0] * 13]
    assert inputs["attention_mask"].sum() == 3


@pytest.mark.parametrize(("padding", "zeros"), [("longest", 5), ("max_length", 13)])
def test_left_padding(tokenizer: PreTrainedTokenizerFast, padding: str, zeros: int) -> None:
    tokenizer.padding_side = "left"
    inputs = encode((["a", "a " * 9],), tokenizer, padding)[0]["inputs"]
    assert inputs["input_ids"].tolist() == [[0] * zeros + [1, 4, 2]]
    assert inputs["attention_mask"].tolist() == [[0] * zeros + [1, 1, 1]]


def test_more_texts_than_a_tokenizer_call_takes(tokenizer: PreTrainedTokenizerFast) -> None:
    data = encode((["a"] * 5000 + ["d"],), tokenizer)
    assert len(data) == 5001
    assert data[5000]["inputs"]["input_ids"][0, :3].tolist() == [1, 7, 2]


def test_loader_needs_no_collation(tokenizer: PreTrainedTokenizerFast) -> None:
    data = encode((["a", "b", "c"],), tokenizer)
    batches = list(DataLoader(data, batch_size=2, collate_fn=identity))
    assert [batch["labels"].tolist() for batch in batches] == [[0, 1], [2]]
    assert batches[0]["inputs"]["input_ids"].shape == (2, 8)


def test_iteration_ends() -> None:
    data = EncodedDataset({"x": torch.zeros(2, 3)}, torch.tensor([4, 5]))
    assert [example["labels"].tolist() for example in data] == [[4], [5]]


def test_tokenizer_without_padding_token(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.pad_token = None
    with pytest.raises(HadError, match="no padding token"):
        encode((["a"],), tokenizer)


def test_more_tokens_than_the_model_takes(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(HadError, match="max_length=129: the model takes 128"):
        encode((["a"],), tokenizer, max_length=129)
