"""Whose novel is this passage? Long documents from real books, those of the test never seen."""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from numpy.random import RandomState

from had.errors import HadError
from had.tasks.objectives import OBJECTIVES, Objective
from had.tasks.reading import Rows
from had.tasks.text import TextTask
from had.tasks.vocabulary import Document

_NAME = re.compile(r"(?P<author>[^_]+)_(?P<title>.+)_(?P<year>\d{4})")
_FRONT = 0.03  # share of a book left out at its beginning: title pages name the author
_BACK = 0.01  # and at its end


@dataclass(kw_only=True, eq=False)
class AuthorTask(TextTask):
    """Passages of novels, classified by author; one book of each author is for evaluation alone.

    Attributes:
        folder: with a file Author_Title_Year.txt for each book.
        passages: from a book, evenly spaced; each has a word at least for every token.
        eval_passages: from a book of the evaluation.
        split_seed: of the choice of these books alone.
    """

    folder: str
    passages: int
    eval_passages: int
    split_seed: int

    def problems(self) -> list[str]:
        problems = super().problems()
        for key in ("passages", "eval_passages"):
            if getattr(self, key) < 1:
                problems.append(f"task.{key}={getattr(self, key)}: must be 1 or more")
        return problems

    def _load(self) -> Objective:
        train, held_out = self._books()
        rows = self._rows(train, self.passages)
        objective = OBJECTIVES[self.objective].learned(rows)
        self._keep(objective, rows, {"": self._rows(held_out, self.eval_passages)})
        return objective

    def _books(self) -> tuple[list[Path], list[Path]]:
        """Books for training and for evaluation, of all authors with two books or more."""
        folder = Path(self.folder).expanduser()
        if not folder.is_dir():
            raise HadError(
                f"task.folder={folder}: no such folder; give one of novels in text files"
            )
        by_author: dict[str, list[Path]] = defaultdict(list)
        for file in sorted(folder.glob("*.txt")):
            if found := _NAME.fullmatch(file.stem):
                by_author[found["author"]].append(file)
        shelves = [books for books in by_author.values() if len(books) > 1]
        if len(shelves) < 2:
            raise HadError(
                f"task.folder={folder}: two authors with two books each are needed, in files named "
                f"Author_Title_Year.txt; there are {len(shelves)}"
            )
        random = RandomState(self.split_seed)
        chosen = {books[random.randint(len(books))] for books in shelves}
        every = [book for books in shelves for book in books]
        return [book for book in every if book not in chosen], sorted(chosen)

    def _rows(self, books: list[Path], count: int) -> Rows:
        texts, labels = [], []
        for book in books:
            words = Document.read(book).text.split()
            cut = passages(words, self.max_length, count)
            texts += cut
            labels += [book.stem.partition("_")[0]] * len(cut)
        return Rows((texts,), labels, range(len(labels)), f"{len(books)} books in {self.folder}")


def passages(words: list[str], length: int, count: int) -> list[str]:
    """So many evenly spaced passages of so many words, front matter left out; overlaps only if
    the book is too short for anything else."""
    first, last = int(_FRONT * len(words)), int((1 - _BACK) * len(words)) - length
    if last < first:
        return [" ".join(words[first : first + length])]
    step = (last - first) / max(1, count - 1)
    starts = dict.fromkeys(round(first + step * index) for index in range(count))
    return [" ".join(words[start : start + length]) for start in starts]
