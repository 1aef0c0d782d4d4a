"""QuALITY's questions from the forms they are published in.

All are JSON lines, one article a line: the official release (a list `questions`), the form in which
its annotations were collected (`question1`, `question1option1`, ...), and that of L-Eval, where a
question and its options are one text.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from had.errors import HadError

OPTIONS = 4
LETTERS = "ABCD"
_OPTION = re.compile(r"\n\s*\(([A-D])\) ")  # where L-Eval begins an option


@dataclass(frozen=True)
class Question:
    """A question on an article.

    Attributes:
        article: its text.
        question: what is asked.
        options: four answers.
        answer: index of the right one.
        where: file and line of its article.
    """

    article: str
    question: str
    options: tuple[str, ...]
    answer: int
    where: str = field(default="", compare=False)

    def __str__(self) -> str:
        """How messages name it."""
        return f"{self.where}: the question {self.question[:60]!r}"


def read_questions(file: Path) -> list[Question]:
    """All labelled questions of a file in any of the three forms.

    Raises:
        HadError: the file cannot be read or is of none of them; it is named, with the line.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise HadError(f"{file}: cannot be read ({error})") from error
    questions = [
        question
        for number, line in enumerate(lines, start=1)
        if line.strip()
        for question in _on_line(line, f"{file}:{number}")
    ]
    if not questions:
        raise HadError(f"{file}: there is no question with a label in it")
    return questions


def _on_line(line: str, where: str) -> Iterator[Question]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise HadError(f"{where}: not valid JSON ({error})") from error
    form = next((form for key, form in _FORMS.items() if key in record), None)
    if form is None:
        raise HadError(f"{where}: none of {', '.join(_FORMS)} is in it, so it is no QuALITY file")
    try:
        for question in form(record):
            _check(question)
            yield replace(question, where=where)
    except (KeyError, ValueError, TypeError) as error:
        raise HadError(f"{where}: a question is damaged ({error!r})") from error


def _check(question: Question) -> None:
    if len(question.options) != OPTIONS or not 0 <= question.answer < OPTIONS:
        raise ValueError(
            f"{len(question.options)} options, the right one is number {question.answer + 1}"
        )


def _official(record: Mapping[str, Any]) -> Iterator[Question]:
    """The release: labels count from 1, and are missing in the test set."""
    article = plain_text(record["article"])
    for each in record["questions"]:
        if "gold_label" in each:
            options = tuple(option.strip() for option in each["options"])
            yield Question(article, each["question"].strip(), options, each["gold_label"] - 1)


def _collected(record: Mapping[str, Any]) -> Iterator[Question]:
    """The annotations: numbered keys, the article as a list of lines."""
    article = plain_text("".join(record["article"]))
    number = 1
    while f"question{number}" in record:
        prefix = f"question{number}"
        options = tuple(record[f"{prefix}option{i + 1}"].strip() for i in range(OPTIONS))
        answer = record[f"{prefix}_gold_label"] - 1
        yield Question(article, record[prefix].strip(), options, answer)
        number += 1


def _leval(record: Mapping[str, Any]) -> Iterator[Question]:
    """L-Eval: "question (A) ... (B) ...", answered by "(B) ..."."""
    article = plain_text(record["input"])
    for instruction, output in zip(record["instructions"], record["outputs"], strict=True):
        question, *marked = _OPTION.split(instruction)
        options = tuple(option.strip() for option in marked[1::2])
        answer = LETTERS.index(output.strip().removeprefix("(")[0])
        yield Question(article, question.strip(), options, answer)


_FORMS: Mapping[str, Callable[[Mapping[str, Any]], Iterator[Question]]] = {
    "questions": _official,
    "question1": _collected,
    "instructions": _leval,
}
"""By a key that only records of this form have."""


class _Text(HTMLParser):
    """Gathers what stands between tags."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def plain_text(article: str) -> str:
    """An article without its HTML, if it has any, and with single spaces."""
    if "</" not in article:
        return " ".join(article.split())
    parser = _Text()
    parser.feed(article)
    parser.close()
    return " ".join(" ".join(parser.parts).split())
