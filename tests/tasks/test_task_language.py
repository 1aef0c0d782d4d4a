"""Packing, held-out text and scores of language-model tasks."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from had.errors import HadError
from had.tasks.base import Task
from had.tasks.language import evenly_spaced, packed
from had.tasks.vocabulary import byte_tokenizer

Make = Callable[..., Task]
Write = Callable[[str, str | bytes], Path]

BYTES = ("task.tokenizer=bytes", "task.context=8")


def _content(dataset: object) -> bytes:
    """The text of a data set's sequences in a row; where a document ends, there is nothing."""
    tokens = dataset.inputs["input_ids"].flatten()  # type: ignore[attr-defined]
    return bytes(tokens[tokens < 256].tolist())


def test_the_label_of_a_token_is_the_next_one() -> None:
    data = packed(torch.arange(12, dtype=torch.int32), 5)
    batch = data.__getitems__([0, 1])
    assert batch["inputs"]["input_ids"].tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert batch["labels"].tolist() == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]


def test_a_last_sequence_without_a_last_label_is_dropped() -> None:
    assert len(packed(torch.arange(10, dtype=torch.int32), 5)) == 1
    assert len(packed(torch.arange(11, dtype=torch.int32), 5)) == 2


def test_evaluated_sequences_are_spread_over_the_text() -> None:
    chosen = evenly_spaced(packed(torch.arange(101, dtype=torch.int32), 10), 4)
    assert chosen.inputs["input_ids"][:, 0].tolist() == [0, 30, 60, 90]


def test_files_held_out_by_name_are_not_trained_on(make_task: Make, write: Write) -> None:
    write("books/a.txt", "a" * 40)
    write("books/deeper/b.txt", "b" * 40)
    write("books/c.txt", "c" * 40)
    write("books/notes.md", "d" * 40)
    path = write("books/e.txt", "e" * 40).parent
    task = make_task("lm/text", f"task.path={path}", "task.held_out=[b.txt,e*]", *BYTES)
    data = task.encode(byte_tokenizer())
    train, held_out = _content(data.train), _content(data.evaluation[""])
    assert {*train} == {*b"ac"}
    assert {*held_out} == {*b"be"}


def test_a_share_of_the_files_is_drawn_by_the_seed(make_task: Make, write: Write) -> None:
    for letter in "abcdefghij":
        path = write(f"books/{letter}.txt", letter * 30).parent

    def held_out(seed: int) -> bytes:
        task = make_task(
            "lm/text",
            f"task.path={path}",
            "task.eval_fraction=0.2",
            f"task.split_seed={seed}",
            *BYTES,
        )
        return bytes(sorted({*_content(task.encode(byte_tokenizer()).evaluation[""])}))

    assert held_out(0) == held_out(0)
    assert len([byte for byte in held_out(0) if byte in b"abcdefghij"]) == 2
    assert len({held_out(seed) for seed in range(5)}) > 1


def test_of_a_single_file_the_end_is_held_out(make_task: Make, write: Write) -> None:
    path = write("one.txt", "first line\n" * 30 + "last words\n" * 10)
    task = make_task("lm/text", f"task.path={path}", "task.eval_fraction=0.25", *BYTES)
    data = task.encode(byte_tokenizer())
    assert b"last" not in _content(data.train)
    assert b"first" not in _content(data.evaluation[""])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.path={}/absent"], "absent: no such file or folder"),
        (["task.path={}/empty"], r"no file \*\.txt in this folder"),
        (["task.path=[]"], r"task\.path=\[\]"),
        (["task.path={}/short.txt"], "training text has .* tokens, too few"),
        (["task.path={}/short.txt", "task.held_out=[x.txt]"], "no file among .* is x.txt"),
        (["task.path={}/short.txt", "task.held_out=[short*]"], "leaves no file for training"),
        (["task.path={}/short.txt", "task.tokenizer=words"], "task.tokenizer=words: one of model"),
        (["task.path={}/short.txt", "task.context=1"], "task.context=1"),
        (["task.path={}/short.txt", "task.score=accuracy"], "task.score=accuracy: one of"),
        (["task.path={}/latin.txt", "task.tokenizer=bpe"], "latin.txt: byte 3 is not valid UTF-8"),
    ],
)
def test_what_cannot_be_is_refused(
    make_task: Make, write: Write, tmp_path: Path, overrides: list[str], message: str
) -> None:
    write("empty/not.md", "x")
    write("short.txt", "tiny")
    write("latin.txt", b"caf\xe9 " * 50)
    given = [text.format(tmp_path) for text in overrides]
    with pytest.raises(Exception, match=message):
        make_task("lm/text", "task.tokenizer=bytes", *given).encode(byte_tokenizer())


def test_the_score_is_compared_by_its_ratio(make_task: Make) -> None:
    task = make_task("lm/stdlib")
    found = task.scores({"perplexity": 20.0}, {"perplexity": 25.0})
    assert found == pytest.approx(
        {"score/teacher": 20.0, "score/student": 25.0, "score/ratio": 1.25, "score/drop": 25.0}
    )


def test_bits_are_counted_per_byte_of_the_text(make_task: Make, write: Write) -> None:
    """A byte costs log2 of the 257 equally likely tokens, and the end of the text comes on top."""
    path = write("one.txt", "ab" * 200)
    task = make_task("lm/text", f"task.path={path}", "task.eval_fraction=0.5", *BYTES)
    data = task.encode(byte_tokenizer())
    metrics = task.metrics()
    labels = data.evaluation[""].labels
    metrics.update(torch.zeros(*labels.shape, 257), labels)
    wanted = math.log2(257) * 201 / 200
    assert float(metrics.compute()["bits_per_byte"]) == pytest.approx(wanted)


def test_the_standard_library_is_there_and_held_out_by_file(make_task: Make) -> None:
    task = make_task("lm/stdlib")
    data = task.encode(byte_tokenizer())
    assert task.num_outputs == 257
    assert len(data.evaluation[""]) == task.eval_sequences  # type: ignore[attr-defined]
    assert b"class ArgumentParser" in _content(data.train)
    with pytest.raises(HadError, match=r"has no no_such_module\.py"):
        make_task("lm/stdlib", "task.modules=[no_such_module.py]").read()


def test_wikitext_prefers_files_and_says_where_it_looked(make_task: Make, write: Write) -> None:
    with pytest.raises(HadError, match=r"train\.txt or valid\.txt.*wikitext2.*Salesforce"):
        make_task("lm/wikitext").read()
    write("wikitext2_valid_test/valid.txt", "valid " * 20)
    write("wikitext2_valid_test/test.txt", "test " * 20)
    data = make_task("lm/wikitext", *BYTES).encode(byte_tokenizer())
    assert b"valid" in _content(data.train)
    assert b"test" in _content(data.evaluation[""])


def test_novels_hold_out_four_books(make_task: Make, write: Write) -> None:
    for book in ("Conrad_Nostromo_1904", "Dickens_Expectations_1861", "Hardy_Tess_1891"):
        write(f"english_novels_100/corpus/{book}.txt", "unseen " * 20)
    write("english_novels_100/corpus/Woolf_Lighthouse_1927.txt", "unseen " * 20)
    write("english_novels_100/corpus/Woolf_Night_1919.txt", "seen by training " * 20)
    data = make_task("lm/novels", *BYTES).encode(byte_tokenizer())
    assert b"unseen" not in _content(data.train)
