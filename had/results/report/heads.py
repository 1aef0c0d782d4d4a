"""What a student's heads are like: magnitudes, and how its bits are spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2
from statistics import mean

STUCK = 0.02  # a bit that is one, or zero, in less than this share of tokens tells them not apart


@dataclass(frozen=True)
class Bits:
    """Shares of ones of the queries or keys of one layer.

    Attributes:
        ones: share of ones by head and bit, 0 .. 1.
    """

    ones: Sequence[Sequence[float]]

    def share(self, head: int) -> float:
        """Mean share of ones of a head."""
        return mean(self.ones[head])

    def entropy(self, head: int) -> float:
        """Mean entropy of a head's bits, each for itself, in bits: 1 if ones and zeros balance."""
        return mean(map(_entropy, self.ones[head]))

    def stuck(self, head: int) -> int:
        """Bits of a head that hardly ever change."""
        return sum(min(share, 1 - share) < STUCK for share in self.ones[head])


@dataclass(frozen=True)
class LayerHeads:
    """One attention layer of a student.

    Attributes:
        name: where it sits in its model.
        sigma: of queries and of keys by head; a single one where the layer has one for all heads;
            empty where each sample has its own.
        bits: of queries and of keys; empty where no data were at hand.
    """

    name: str
    sigma: dict[str, Sequence[float]]
    bits: dict[str, Bits]


@dataclass(frozen=True)
class Inspection:
    """A student looked at.

    Attributes:
        layers: in the order of the model.
        tokens: that its bits were counted on, 0 without data.
        problem: why there were no data, if there were none.
    """

    layers: Sequence[LayerHeads]
    tokens: int = 0
    problem: str = ""


def _entropy(share: float) -> float:
    return -sum(p * log2(p) for p in (share, 1 - share) if p > 0)
