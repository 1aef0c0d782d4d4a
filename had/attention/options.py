"""What a student's attention layers are: their shape, and the options they have in common."""

from __future__ import annotations

from dataclasses import dataclass

from had.attention.binarize import SCALES
from had.attention.topn import ScaledN, TopN, check_topn
from had.attention.weighting import WEIGHTINGS

FINAL_RELAXATIONS = ("sign", "identity")
_CROSS = ("encdecattention", "encoder_attn", "crossattention")  # T5, BART, BERT as a decoder


@dataclass(frozen=True)
class AttentionGeometry:
    """Shape of one attention layer.

    Attributes:
        name: where the layer sits in its model, e.g. "encoder.layer.3.attention.self".
        heads: query heads H.
        kv_heads: key/value heads G; H is a multiple of G.
        head_dim: width D of a head.
    """

    name: str
    heads: int
    kv_heads: int
    head_dim: int

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError(
                f"{self.name}: {self.heads} query heads are not a multiple of {self.kv_heads} "
                "key/value heads"
            )

    @property
    def is_cross(self) -> bool:
        """Whether keys are of another sequence than queries, as libraries name such layers."""
        return any(part in _CROSS for part in self.name.lower().split("."))


@dataclass(frozen=True)
class AttentionOptions:
    """What a student's attention layers have in common; stored with the student.

    Attributes:
        n: keys a row keeps, an integer >= 1 or a fraction in (0, 1] of the allowed keys.
        minimum: keys that a row keeps at least where n is a fraction and it may see as many.
        scale: how sigma is found, a key of `had.attention.binarize.SCALES`.
        ste_clip: the sign's gradient passes where |x| <= ste_clip * sigma; None: everywhere.
        relaxation: what a finished student computes with, a key of `RELAXATIONS`: "sign", or
            "identity" where queries and keys stay in full precision.
        weights: how kept keys weigh, a key of `had.attention.weighting.WEIGHTINGS`.
        recent: keys of a row, its last ones, that are scored in full precision and always kept;
            they count among the n. For causal models: the end of a row is the query itself there.
        position_bias: whether a learned bias of relative positions is added to the scores, where
            the tokens are a grid of patches (`had.attention.position_bias`).
        backend: "auto" or a key of `had.attention.backends.BACKENDS`.
    """

    n: int | float = 30
    minimum: int = 1
    scale: str = "frozen_sigma"
    ste_clip: float | None = None
    relaxation: str = "sign"
    weights: str = "softmax"
    recent: int = 0
    position_bias: bool = False
    backend: str = "auto"

    def __post_init__(self) -> None:
        check_topn(self.topn)
        if self.scale not in SCALES:
            raise ValueError(f"scale = {self.scale!r} is unknown; there are {', '.join(SCALES)}")
        if self.relaxation not in FINAL_RELAXATIONS:
            known = ", ".join(FINAL_RELAXATIONS)
            raise ValueError(
                f"relaxation = {self.relaxation!r}: a student ends with one of {known}"
            )
        if self.weights not in WEIGHTINGS:
            known = ", ".join(WEIGHTINGS)
            raise ValueError(f"weights = {self.weights!r} is unknown; there are {known}")
        if self.recent < 0:
            raise ValueError(f"recent = {self.recent}: must be 0 or more")
        least = self.n if isinstance(self.n, int) else self.minimum
        if self.recent > least:
            raise ValueError(
                f"recent = {self.recent}: these are among the keys that a row keeps, and it keeps "
                f"{least}: raise n or its minimum, or lower it"
            )
        if self.ste_clip is not None and self.ste_clip <= 0:
            raise ValueError(f"ste_clip = {self.ste_clip}: must be positive, or null for no clip")

    @property
    def topn(self) -> TopN:
        """n and minimum as the one rule that attention follows."""
        return self.n if self.minimum == 1 else ScaledN(self.n, self.minimum)
