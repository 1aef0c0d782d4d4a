"""Authors of novels: which books are held out, and what a passage is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from had.errors import HadError
from had.tasks.base import Task
from had.tasks.longdoc import passages

Make = Callable[..., Task]
Write = Callable[[str, str | bytes], Path]

CORPUS = "english_novels_100/corpus"


def _shelf(write: Write) -> None:
    """Two authors of three books, one of a single one; each word says where it stands."""
    for book in ("Eliot_Adam_1859", "Eliot_Felix_1866", "Eliot_Daniel_1876", "Anon_Clara_1864"):
        write(f"{CORPUS}/{book}.txt", " ".join(f"{book}{i}" for i in range(500)))
    for book in ("Hardy_Jude_1895", "Hardy_Tess_1891", "Hardy_Madding_1874"):
        write(f"{CORPUS}/{book}.txt", " ".join(f"{book}{i}" for i in range(500)))


def _books(task: Task) -> tuple[set[str], set[str]]:
    """The books that passages for training and evaluation come from, by their words."""
    task.read()
    held_out = task._evaluation[""]  # type: ignore[attr-defined]
    parts = (task._train.texts[0], held_out.texts[0])  # type: ignore[attr-defined]
    train, evaluation = ({text[: text.index("_1") + 5] for text in part} for part in parts)
    return train, evaluation


def test_one_book_of_each_author_is_unseen(make_task: Make, write: Write) -> None:
    _shelf(write)
    task = make_task("longdoc/author", "task.max_length=16", "task.passages=5")
    train, held_out = _books(task)
    assert (len(train), len(held_out)) == (4, 2)
    assert not train & held_out
    assert task.label_names == ["Eliot", "Hardy"]
    assert _books(make_task("longdoc/author", "task.max_length=16")) == (train, held_out)


def test_the_seed_chooses_the_books(make_task: Make, write: Write) -> None:
    _shelf(write)
    choices = {
        frozenset(_books(make_task("longdoc/author", f"task.split_seed={seed}"))[1])
        for seed in range(6)
    }
    assert len(choices) > 1


def test_passages_are_evenly_spaced_between_front_and_back_matter() -> None:
    words = [str(i) for i in range(1000)]
    found = [[int(word) for word in text.split()] for text in passages(words, 10, 4)]
    assert [len(each) for each in found] == [10, 10, 10, 10]
    assert [each[0] for each in found] == [30, 347, 663, 980]


def test_a_book_shorter_than_a_passage_is_one() -> None:
    assert passages([str(i) for i in range(100)], 200, 4) == [
        " ".join(str(i) for i in range(3, 100))
    ]


@pytest.mark.parametrize(
    "books", [[], ["Eliot_Adam_1859.txt", "Hardy_Tess_1891.txt", "readme.txt"]]
)
def test_a_folder_without_two_authors_is_refused(
    make_task: Make, write: Write, books: list[str]
) -> None:
    for book in books:
        write(f"{CORPUS}/{book}", "words")
    with pytest.raises(HadError, match=r"task\.folder=.*(no such folder|two authors)"):
        make_task("longdoc/author").read()
