"""Bytes, trained vocabularies and the model's own, and how they travel with a student."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from had.errors import HadError
from had.tasks.vocabulary import (
    VOCABULARIES,
    ByteVocabulary,
    Document,
    OwnVocabulary,
    TrainedVocabulary,
    byte_tokenizer,
)

TEXT = "Ein Käse — naïve, 漢字\n\tend  "


def _nothing() -> Any:
    raise AssertionError("the model's own tokenizer is not asked for")


def test_a_byte_is_its_own_token() -> None:
    tokenizer = byte_tokenizer()
    every = bytes(range(128)).decode()
    assert tokenizer(every)["input_ids"] == list(range(128))
    assert tokenizer(TEXT)["input_ids"] == list(TEXT.encode())
    assert tokenizer.decode(list(TEXT.encode())) == TEXT
    assert (len(tokenizer), tokenizer.eos_token_id) == (257, 256)


def test_bytes_need_not_be_text() -> None:
    document = Document("any", bytes(range(256)))
    tokens = ByteVocabulary().ended(byte_tokenizer(), [document])
    assert tokens.tolist() == list(range(257))


def test_the_byte_tokenizer_is_read_back_from_a_student(tmp_path: Path) -> None:
    byte_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(TEXT)["input_ids"] == list(TEXT.encode())
    assert again.decode(list(TEXT.encode())) == TEXT
    assert again.eos_token_id == 256


@pytest.fixture
def trained(tmp_path: Path) -> TrainedVocabulary:
    return TrainedVocabulary(300, tmp_path)


DOCUMENTS = [Document("a", b"the cat and the dog and the cat " * 20)]


def test_a_trained_vocabulary_has_the_size_asked_for_and_loses_nothing(
    trained: TrainedVocabulary,
) -> None:
    """An alphabet of 256 bytes and the end of text; there are fewer than 43 pairs to merge here."""
    tokenizer = trained.tokenizer(_nothing, DOCUMENTS)
    assert 257 < len(tokenizer) <= 300
    tokens = trained.tokens(tokenizer, DOCUMENTS[0])
    assert len(tokens) < len(DOCUMENTS[0].content) / 3
    assert tokenizer.decode(tokens.tolist()) == DOCUMENTS[0].text
    unseen = Document("b", TEXT.encode())
    assert tokenizer.decode(trained.tokens(tokenizer, unseen).tolist()) == TEXT


def test_a_vocabulary_is_trained_once_for_the_same_text(
    trained: TrainedVocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = trained.tokenizer(_nothing, DOCUMENTS)

    def refuse(*_: Any) -> Any:
        raise AssertionError("trained again")

    monkeypatch.setattr(TrainedVocabulary, "_train", refuse)
    again = trained.tokenizer(_nothing, [Document("renamed", DOCUMENTS[0].content)])
    assert again.get_vocab() == first.get_vocab()
    with pytest.raises(AssertionError, match="trained again"):
        trained.tokenizer(_nothing, [Document("a", DOCUMENTS[0].content + b"more")])


def test_the_models_own_tokenizer_adds_nothing_inside(tokenizer: PreTrainedTokenizerFast) -> None:
    vocabulary = OwnVocabulary()
    assert vocabulary.tokenizer(lambda: tokenizer, []) is tokenizer
    documents = [Document("a", b"a b good"), Document("b", b""), Document("c", b"b")]
    assert vocabulary.ended(tokenizer, documents).tolist() == [4, 5, 8, 5]


def test_marks_and_line_ends_of_windows_are_dropped(
    write: Callable[[str, str | bytes], Path],
) -> None:
    assert Document.read(write("a.txt", b"\xef\xbb\xbfone\r\ntwo\n")).content == b"one\ntwo\n"


def test_a_file_that_is_no_text_is_named_with_the_way_out() -> None:
    document = Document("folder/latin.txt", "Käse".encode("latin-1"))
    with pytest.raises(HadError, match=r"folder/latin\.txt: byte 1 .*task\.tokenizer=bytes"):
        VOCABULARIES["model"](0, Path()).tokens(byte_tokenizer(), document)
