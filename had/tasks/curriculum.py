"""A curriculum: texts of one length in a batch, and longer and harder ones as training goes on."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import accumulate, cycle, islice, pairwise
from typing import Any, Self

import torch
from torch import Tensor

from had.tasks.base import Batch
from had.tasks.language import TokenDataset
from had.tasks.order import Order

MOST_DIGITS = 18  # of a number that int64 holds


@dataclass(frozen=True)
class Stage:
    """What a part of the training texts is like.

    Attributes:
        share: of the training rows, relative to the shares of the other stages.
        length: tokens of a text; no text is longer than the task's context.
        key_digits: of keys that are numbers; None for the task's.
    """

    share: float
    length: int
    key_digits: int | None = None

    @classmethod
    def problems(cls, key: str, settings: Mapping[str, Any]) -> Iterator[str]:
        """One sentence for each setting of a stage that cannot be."""
        names = [each.name for each in fields(cls)]
        if missing := [name for name in names[:2] if name not in settings]:
            yield f"{key}: give {' and '.join(missing)}, as in {{share: 0.5, length: 128}}"
        if unknown := [str(name) for name in settings if name not in names]:
            yield f"{key}.{unknown[0]}: a stage has {', '.join(names)}"
        for name, (holds, advice) in _LIMITS.items():
            value = settings.get(name, 1)
            if isinstance(value, bool) or not holds(value):
                yield f"{key}.{name}={value}: must be {advice}"


_LIMITS = {
    "share": (lambda v: isinstance(v, int | float) and v > 0, "a number greater than 0"),
    "length": (lambda v: isinstance(v, int) and v >= 1, "tokens of a text, 1 or more"),
    "key_digits": (
        lambda v: v is None or (isinstance(v, int) and 1 <= v <= MOST_DIGITS),
        f"1 to {MOST_DIGITS}, or null for task.key_digits",
    ),
}


def doubling(shortest: int, longest: int) -> list[Stage]:
    """Equal shares of lengths that double from the shortest; the last one is the longest."""
    lengths = [longest]
    while shortest < longest:
        lengths.insert(-1, shortest)
        shortest *= 2
    return [Stage(1.0, length) for length in lengths]


@dataclass(frozen=True)
class Part:
    """The rows of one stage: they lie together in the data set.

    Attributes:
        first: row.
        count: of rows, one at least.
        stage: what their texts are like.
    """

    first: int
    count: int
    stage: Stage


@dataclass(frozen=True)
class Curriculum(Order):
    """A pass goes through the stages; each batch is of one of them, and its rows are in any order.

    A share of the batches is of an earlier stage, with as many digits where there is one, so that
    nothing is forgotten. A pass that is cut short takes fewer batches of every stage.

    Attributes:
        parts: in the order of training.
        replay: share of the batches that are of an earlier stage.
        skipped: share of the curriculum that is left out, from its beginning on. Whoever trains
            sets it, so it is no part of the representation.
    """

    parts: tuple[Part, ...]
    replay: float
    skipped: float = field(default=0.0, repr=False)

    @classmethod
    def divided(cls, rows: int, stages: Sequence[Stage], replay: float) -> Self:
        """So many rows divided into stages by their shares; a stage that gets none is left out."""
        sums = [0.0, *accumulate(stage.share for stage in stages)]
        borders = pairwise(round(rows * part / sums[-1]) for part in sums)
        parts = (Part(a, b - a, each) for (a, b), each in zip(borders, stages, strict=True))
        return cls(tuple(part for part in parts if part.count), replay)

    def after(self, share: float) -> Self:
        return replace(self, skipped=share)

    def part_of(self, row: int) -> int:
        """The number of the part that a row belongs to."""
        return bisect_right([part.first for part in self.parts], row) - 1

    def __call__(
        self, size: int, batch_size: int, batches: int, generator: torch.Generator
    ) -> list[int]:
        rows = [
            cycle((part.first + torch.randperm(part.count, generator=generator)).tolist())
            for part in self.parts
        ]
        order: list[int] = []
        for batch, luck in enumerate(torch.rand(batches, 2, generator=generator).tolist()):
            done = self.skipped + (1 - self.skipped) * (batch + 0.5) / batches
            part = self._replayed(self.part_of(int(done * size)), *luck)
            order += islice(rows[part], min(batch_size, size - batch * batch_size))
        return order

    def _replayed(self, part: int, luck: float, choice: float) -> int:
        """The part itself or an earlier one, by two numbers in [0, 1)."""
        digits = [each.stage.key_digits for each in self.parts]
        earlier = [each for each in range(part) if digits[each] == digits[part]] or range(part)
        return earlier[int(choice * len(earlier))] if earlier and luck < self.replay else part


class StagedDataset(TokenDataset):
    """Rows of as many tokens as fit, each with several texts of its stage's length.

    A batch of B rows becomes (B * texts in a row, length): with the length shrinks the number of
    texts, not that of tokens.

    Args:
        inputs: input_ids (rows, context), texts one after the other; what is left at the end of a
            row that they do not fill is not used.
        labels: (rows, context).
        curriculum: the stages of these rows.
    """

    order: Curriculum

    def __init__(self, inputs: dict[str, Tensor], labels: Tensor, curriculum: Curriculum) -> None:
        super().__init__(inputs, labels)
        self.order = curriculum

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        parts = {self.order.part_of(index % len(self)) for index in indices}
        assert len(parts) == 1, "the curriculum gives rows of one stage"
        length = self.order.parts[parts.pop()].stage.length
        batch = super().__getitems__(indices)
        inputs = {name: _texts(rows, length) for name, rows in batch["inputs"].items()}
        return {"inputs": inputs, "labels": _texts(batch["labels"], length)}


def _texts(rows: Tensor, length: int) -> Tensor:
    """(B, context) as (B * (context // length), length)."""
    count = rows.shape[1] // length
    return rows[:, : count * length].reshape(-1, length)
