"""What the value of a key must satisfy by itself, beyond its type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from had.config import BACKENDS, DECAYS, FINAL_RELAXATIONS, SCALES, WEIGHTINGS
from had.config.values import Values, at
from had.config.wording import one_of

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
PRECISIONS = (
    *("32-true", "bf16-mixed", "16-mixed", "64-true", "bf16-true", "16-true"),
    *("32", "bf16", "16", "64", "transformer-engine", "transformer-engine-float16"),
)
SCHEDULES = ("schedule", "finetune")


@dataclass(frozen=True)
class Limit:
    """What one key's value must satisfy.

    Attributes:
        key: dotted.
        holds: whether a value will do; only asked about values that are not null.
        advice: the sentence after the value; called with it.
    """

    key: str
    holds: Callable[[Any], bool]
    advice: Callable[[Any], str]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def at_least(key: str, least: float) -> Limit:
    """A number that is at least so much."""
    return Limit(key, lambda v: not _number(v) or v >= least, lambda v: f"must be {least} or more")


def above_zero(key: str, advice: str = "must be greater than 0") -> Limit:
    """A number greater than zero."""
    return Limit(key, lambda v: not _number(v) or v > 0, lambda v: advice)


def share(key: str) -> Limit:
    """A number between 0 and 1."""
    return Limit(key, lambda v: 0 <= v <= 1, lambda v: "must be a share between 0 and 1")


def named(key: str, names: tuple[str, ...]) -> Limit:
    """One of a few names."""
    return Limit(key, lambda v: str(v) in names, lambda v: f"must be {one_of(v, names)}")


def _is_topn(n: Any) -> bool:
    if isinstance(n, bool) or not _number(n):
        return False
    return n >= 1 if isinstance(n, int) else 0 < n <= 1


def _are_betas(values: Any) -> bool:
    return len(values) == 2 and all(_number(value) and 0 <= value < 1 for value in values)


def _schedule_limits(name: str) -> list[Limit]:
    return [
        above_zero(f"{name}.epochs", "must be greater than 0 (see task.epochs)"),
        above_zero(
            f"{name}.learning_rate", "must be greater than 0 (it follows task.learning_rate)"
        ),
        above_zero(f"{name}.epochs_factor"),
        above_zero(f"{name}.learning_rate_factor"),
        above_zero(f"{name}.query_key_learning_rate", "must be greater than 0, or null"),
        share(f"{name}.warmup"),
        share(f"{name}.final_factor"),
        at_least(f"{name}.weight_decay", 0),
        Limit(f"{name}.betas", _are_betas, lambda v: "must be two numbers in [0, 1)"),
        at_least(f"{name}.attention_stride", 1),
        share(f"{name}.curriculum_skip"),
        named(f"{name}.decay", DECAYS),
    ]


LIMITS = (
    Limit(
        "sparsity.n",
        _is_topn,
        lambda n: "must be an integer of 1 or more, or a fraction in (0, 1] of the keys in view",
    ),
    at_least("sparsity.minimum", 1),
    named("backend", BACKENDS),
    named("binarization.scale", SCALES),
    named("binarization.relaxation", FINAL_RELAXATIONS),
    named("binarization.weights", WEIGHTINGS),
    above_zero("binarization.ste_clip", "must be greater than 0, or null for no clip"),
    at_least("binarization.calibration_batches", 1),
    at_least("binarization.recent", 0),
    *(limit for name in SCHEDULES for limit in _schedule_limits(name)),
    named("trainer.accelerator", ACCELERATORS),
    named("trainer.precision", PRECISIONS),
    at_least("trainer.accumulate_grad_batches", 1),
    at_least("callbacks.checkpoints.every_n_steps", 1),
    at_least("callbacks.checkpoints.keep", 1),
    at_least("seed", 0),
)


def limits(values: Values) -> Iterator[str]:
    """Every number is within what its key allows."""
    for limit in LIMITS:
        value = at(values, limit.key)
        if value is not None and not limit.holds(value):
            yield f"{limit.key}={value}: {limit.advice(value)}"
