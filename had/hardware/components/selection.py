"""Units that choose the top-N keys: in two stages behind a CAM, or exactly in one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from had.hardware.components.base import Component, Parallel, Tiling, ceil_div
from had.hardware.workload import HeadPass

UNLIMITED = 2**62


@dataclass(frozen=True)
class TileTop(Component):
    """First stage: the `keep` best scores of every tile of rows, lossy when a tile holds more."""

    keep: int

    def uses(self, work: HeadPass, tiling: Tiling) -> float:
        return tiling.row_tiles(work)

    def keeps(self, work: HeadPass, tiling: Tiling) -> float:
        full, rest = divmod(work.keys, tiling.rows)
        return full * min(self.keep, tiling.rows) + min(self.keep, rest)

    def note(self, work: HeadPass, tiling: Tiling) -> str | None:
        limit = self.keeps(work, tiling)
        if limit >= work.kept:
            return None
        return f"{self.name} passes at most {limit:g} of {work.keys:g} keys, fewer than n"


@dataclass(frozen=True)
class TilePost(Component):
    """A circuit used once for every tile of rows, `count` instances of it."""

    count: int = 1

    def copies(self, work: HeadPass, tiling: Tiling) -> float:
        return self.count

    def uses(self, work: HeadPass, tiling: Tiling) -> float:
        return tiling.row_tiles(work)


@dataclass(frozen=True)
class RowsTop(TileTop):
    """A first stage whose size follows the array rows; the unit describes `reference_rows`."""

    reference_rows: int = 1

    def copies(self, work: HeadPass, tiling: Tiling) -> float:
        return tiling.rows / self.reference_rows


@dataclass(frozen=True)
class Pruning:
    """When the running selection of a two-stage unit prunes its candidates.

    Once `first_keys` keys have been seen, every `every_keys` keys: twice for 1,024 keys with 512
    and 256, at one half and three quarters of the tiles as in tmo324/CAMformerV1
    experiments/sensitivity_study.py, whatever the rows of a tile.

    Attributes:
        first_keys: Keys seen before the first pruning.
        every_keys: Keys between two prunings.
    """

    first_keys: int
    every_keys: int

    def count(self, work: HeadPass) -> int:
        """Return the prunings before the final one."""
        late = work.keys - self.first_keys
        return max(0, math.ceil(late / self.every_keys - 1e-9))


@dataclass(frozen=True)
class CandidateRegister(Component):
    """Holds the candidates of the first stage: written every tile, rewritten at every pruning."""

    first_keys: int
    every_keys: int

    def uses(self, work: HeadPass, tiling: Tiling) -> float:
        prunings = Pruning(self.first_keys, self.every_keys).count(work)
        return tiling.row_tiles(work) + prunings


@dataclass(frozen=True)
class MergeTop(Component):
    """Second stage: prunes the candidates to `capacity`, several times a pass and once at its end.

    More keys than `capacity` take several units side by side. Only the final use is on the path.
    """

    capacity: int
    first_keys: int
    every_keys: int

    def copies(self, work: HeadPass, tiling: Tiling) -> float:
        return ceil_div(work.kept, self.capacity)

    def uses(self, work: HeadPass, tiling: Tiling) -> float:
        return Pruning(self.first_keys, self.every_keys).count(work) + 1

    def starts(self, work: HeadPass, tiling: Tiling) -> float:
        return 1.0


@dataclass(frozen=True)
class WholePass(Component):
    """A circuit used once a head pass, for up to `capacity` kept keys."""

    capacity: int = UNLIMITED

    def copies(self, work: HeadPass, tiling: Tiling) -> float:
        return ceil_div(work.kept, self.capacity)

    def uses(self, work: HeadPass, tiling: Tiling) -> float:
        return 1.0


@dataclass(frozen=True)
class QueueComparators(Parallel):
    """Exact top-N, its comparators: `lanes` sorted queues of N cells, merged at the end.

    Every arriving score is compared with the N cells of its queue; then N times the heads of the
    queues are compared and the best is taken: keys x N + N x (lanes - 1) comparisons. One action is
    one comparison; nothing happens when all keys are kept.
    """

    def copies(self, work: HeadPass, tiling: Tiling) -> float:
        return self.lanes * work.kept

    def uses(self, work: HeadPass, tiling: Tiling) -> float:
        if work.dense:
            return 0.0
        return ceil_div(work.keys, self.lanes) + work.kept

    def actions(self, work: HeadPass, tiling: Tiling) -> float:
        if work.dense:
            return 0.0
        return work.keys * work.kept + work.kept * (self.lanes - 1)


@dataclass(frozen=True)
class QueueRegisters(Parallel):
    """Exact top-N, its cells: one action is one cell written.

    In random order a queue of N cells that sees k scores takes in N (1 + ln(k / N)) of them, and
    each moves half the cells. Merging only reads.
    """

    def copies(self, work: HeadPass, tiling: Tiling) -> float:
        return self.lanes * work.kept

    def uses(self, work: HeadPass, tiling: Tiling) -> float:
        if work.dense:
            return 0.0
        seen = work.keys / self.lanes
        filled = min(work.kept, seen)
        return self.lanes * filled * (1 + math.log(seen / filled))

    def actions(self, work: HeadPass, tiling: Tiling) -> float:
        return self.uses(work, tiling) * work.kept / 2


def expected_recall(keys: int, rows: int, keep: int, n: int) -> float:
    """Return the share of the true top-n that survives a first stage of `keep` per `rows` keys.

    The positions of the top-n are taken as uniform, so each tile holds a hypergeometric number of
    them (the convention of tmo324/CAMformerV1 p00_data/results.json). It is an expectation over
    positions, not the accuracy of a task.

    Args:
        keys: Keys in all, a multiple of `rows`.
        rows: Keys of a tile.
        keep: Keys a tile passes on.
        n: Keys wanted.
    """
    all_draws = math.comb(keys, rows)
    caught = sum(
        min(hits, keep) * math.comb(n, hits) * math.comb(keys - n, rows - hits)
        for hits in range(min(rows, n) + 1)
    )
    return min(1.0, keys / rows * caught / all_draws / n)
