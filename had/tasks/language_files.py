"""Language modelling on files: a user's own, well-known ones, or Python's own sources."""

import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from had.errors import HadError
from had.tasks.hub import HubUnavailableError, hub_text
from had.tasks.language import LanguageTask
from had.tasks.splits import fraction_problems
from had.tasks.vocabulary import Document


@dataclass(kw_only=True, eq=False)
class TextFilesTask(LanguageTask):
    """Language modelling on text files.

    Attributes:
        path: a folder (with its subfolders), a file, or a list of files.
        pattern: of the names of files that count in a folder.
        held_out: names or patterns of the files for evaluation; empty leaves it to the fraction.
        eval_fraction: share of the files drawn for evaluation, one at least; of a single file its
            last part.
        split_seed: of that draw alone.
    """

    path: str | list[str]
    pattern: str
    held_out: list[str]
    eval_fraction: float
    split_seed: int

    def problems(self) -> list[str]:
        return super().problems() + fraction_problems("eval_fraction", self.eval_fraction)

    def _documents(self) -> tuple[list[Document], list[Document]]:
        documents = [Document.read(path) for path in self._files()]
        if self.held_out:
            return self._by_name(documents)
        if len(documents) == 1:
            return tail_apart(documents[0], self.eval_fraction)
        order = np.random.RandomState(self.split_seed).permutation(len(documents))
        count = min(max(1, round(len(documents) * self.eval_fraction)), len(documents) - 1)
        chosen = set(order[:count].tolist())
        parts: tuple[list[Document], list[Document]] = ([], [])
        for index, document in enumerate(documents):
            parts[index in chosen].append(document)
        return parts

    def _files(self) -> list[Path]:
        places = [self.path] if isinstance(self.path, str) else self.path
        files = [file for place in places for file in self._files_at(Path(place).expanduser())]
        if not files:
            raise HadError("task.path=[]: give a folder of text files, a file, or a list of files")
        return files

    def _files_at(self, place: Path) -> list[Path]:
        if place.is_file():
            return [place]
        if not place.is_dir():
            raise HadError(f"task.path={place}: no such file or folder")
        found = sorted(path for path in place.rglob(self.pattern) if path.is_file())
        if not found:
            raise HadError(
                f"task.path={place}: there is no file {self.pattern} in this folder; give another "
                "folder, or task.pattern=<names to read>"
            )
        return found

    def _by_name(self, documents: Sequence[Document]) -> tuple[list[Document], list[Document]]:
        parts: tuple[list[Document], list[Document]] = ([], [])
        for pattern in self.held_out:
            if not any(_matches(document, pattern) for document in documents):
                raise HadError(f"task.held_out: no file among those of task.path is {pattern}")
        for document in documents:
            parts[any(_matches(document, pattern) for pattern in self.held_out)].append(document)
        if not parts[0]:
            raise HadError(f"task.held_out={self.held_out}: leaves no file for training")
        return parts


def tail_apart(document: Document, fraction: float) -> tuple[list[Document], list[Document]]:
    """A document's beginning and its last part, divided at the end of a line if there is one."""
    wanted = round(len(document.content) * (1 - fraction))
    border = document.content.find(b"\n", max(0, wanted - 1)) + 1 or wanted
    if border >= len(document.content):
        border = wanted
    head, tail = document.content[:border], document.content[border:]
    return [Document(document.name, head)], [Document(document.name, tail)]


def _matches(document: Document, pattern: str) -> bool:
    return fnmatch(Path(document.name).name, pattern) or fnmatch(document.name, pattern)


@dataclass(kw_only=True, eq=False)
class WikitextTask(LanguageTask):
    """WikiText from files, or from the Hub where there are none.

    Attributes:
        folder: where the files may lie.
        train_files: the first of these that is there is trained on.
        eval_file: what is evaluated on.
        hub: id on the Hub.
        subset: of it.
    """

    folder: str
    train_files: list[str]
    eval_file: str
    hub: str
    subset: str

    def _documents(self) -> tuple[list[Document], list[Document]]:
        folder = Path(self.folder).expanduser()
        train = [folder / name for name in self.train_files if (folder / name).is_file()]
        if train and (folder / self.eval_file).is_file():
            return [Document.read(train[0])], [Document.read(folder / self.eval_file)]
        try:
            return [self._from_hub("train")], [self._from_hub("test")]
        except HubUnavailableError as error:
            raise HadError(
                f"{self.name}: neither {' or '.join(self.train_files)} and {self.eval_file} in "
                f"{folder} nor {self.hub} on the Hub ({error}); put the files there "
                "(task.folder=<folder>), or go online with the package `datasets` installed"
            ) from error

    def _from_hub(self, split: str) -> Document:
        return Document(f"{self.hub} {split}", hub_text(self.hub, self.subset, split).encode())


@dataclass(kw_only=True, eq=False)
class StdlibTask(LanguageTask):
    """Python's standard library as text: real, and on every machine.

    Attributes:
        modules: files trained on, as named below the library's folder.
        held_out: files evaluated on.
    """

    modules: list[str]
    held_out: list[str]

    def problems(self) -> list[str]:
        problems = super().problems()
        both = sorted({*self.modules} & {*self.held_out})
        if both:
            problems.append(f"task.held_out: {', '.join(both)} would also be trained on")
        if not self.modules or not self.held_out:
            problems.append("task.modules and task.held_out: both need a file at least")
        return problems

    def _documents(self) -> tuple[list[Document], list[Document]]:
        folder = Path(sysconfig.get_path("stdlib"))
        absent = [name for name in (*self.modules, *self.held_out) if not (folder / name).is_file()]
        if absent:
            raise HadError(
                f"{self.name}: {folder} has no {', '.join(absent)}; this Python comes without its "
                "sources, or without these: name others (task.modules, task.held_out), or take "
                "task=lm/text"
            )
        parts = (
            [Document.read(folder / name, name) for name in self.modules],
            [Document.read(folder / name, name) for name in self.held_out],
        )
        return parts
