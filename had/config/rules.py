"""The cross-field rules: what types cannot say, nor a key's limits.

A value that is missing or of the wrong type is reported elsewhere; rules skip it. Those of sweeps
are in `had.config.sweep_rules`.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isclose
from pathlib import Path

from had.config import RELAXATIONS
from had.config.limits import SCHEDULES, limits
from had.config.values import Rule, Values, at, is_sharded
from had.config.wording import one_of
from had.paths import LOCAL_DIRECTORY, looks_like_path

_SHARE_TOLERANCE = 1e-6  # shares are decimals that people add up
_ANNEALED = ("soft", "sharp")  # relaxations with a sharpness c
_WIDTHS = (("embed_dim", "num_heads"), ("hidden_size", "num_attention_heads"))


def minimum_of_a_share(values: Values) -> Iterator[str]:
    """A minimum means something beside a share of the keys alone."""
    n, minimum = at(values, "sparsity.n"), at(values, "sparsity.minimum")
    if isinstance(n, int) and isinstance(minimum, int) and minimum > 1:
        yield (
            f"sparsity.minimum={minimum} goes with a fraction, and sparsity.n={n} is a number: set "
            "sparsity.n to the share of keys to keep, or sparsity.minimum=1"
        )


def room_for_exact_keys(values: Values) -> Iterator[str]:
    """The keys that are kept in any case are among the N."""
    n, minimum = at(values, "sparsity.n"), at(values, "sparsity.minimum")
    recent = at(values, "binarization.recent") or 0
    least = n if isinstance(n, int) else minimum
    if isinstance(least, int) and recent > max(least, 0):
        key = "sparsity.n" if isinstance(n, int) else "sparsity.minimum"
        yield (
            f"{key}={least}: the binarization.recent={recent} last keys are among those that a "
            f"query keeps; raise {key} to {recent} or more"
        )


def whole_projections(values: Values) -> Iterator[str]:
    """Queries and keys learn at a pace of their own only where their weights are whole."""
    rate = at(values, "schedule.query_key_learning_rate")
    if is_sharded(at(values, "trainer.strategy")) and rate is not None:
        yield (
            f"schedule.query_key_learning_rate={rate}: under FSDP a process holds pieces of "
            "weights in which queries and keys cannot be told apart; set it to null, or use "
            "trainer=ddp"
        )


def stages(values: Values) -> Iterator[str]:
    """Every stage makes sense by itself."""
    for name in SCHEDULES:
        for index, stage in enumerate(at(values, f"{name}.stages") or []):
            yield from _stage(f"{name}.stages.{index}", stage)


def _stage(key: str, stage: Values) -> Iterator[str]:
    relaxation = at(stage, "relaxation")
    if relaxation is not None and relaxation not in RELAXATIONS:
        yield f"{key}.relaxation={relaxation}: must be {one_of(relaxation, RELAXATIONS)}"
    if relaxation in _ANNEALED:
        yield from _sharpness(f"{key}.c", relaxation, at(stage, "c"))
    if (at(stage, "share") or 0) < 0:
        yield f"{key}.share={stage['share']}: must not be negative"
    if (factor := at(stage, "learning_rate_factor")) is not None and factor <= 0:
        yield f"{key}.learning_rate_factor={factor}: must be greater than 0"
    mixing = at(stage, "mixing") or 0
    if not 0 <= mixing <= 1:
        yield f"{key}.mixing={mixing}: must be a share between 0 and 1"
    weights = at(stage, "weights") or {}
    if mixing and [name for name, weight in weights.items() if weight] == ["task"]:
        yield (
            f"{key}.mixing={mixing}: mixed examples may have no labels, and no other loss is on; "
            f"set it to 0, or {key}.weights.output=1"
        )
    if weights and not any(weights.values()):
        yield f"{key}.weights: all are 0, so the stage has nothing to learn from; raise one"
    for loss, weight in weights.items():
        if weight < 0:
            yield f"{key}.weights.{loss}={weight}: must not be negative; 0 turns a loss off"


def _sharpness(key: str, relaxation: str, c: list[float] | None) -> Iterator[str]:
    if c is None:
        yield f"{key} is missing: a {relaxation} stage needs [from, to], as in {key}=[1.0,0.05]"
    elif len(c) != 2 or min(c) <= 0:
        yield f"{key}={c}: must be two positive numbers, [from, to]"


def shares(values: Values) -> Iterator[str]:
    """The stages of a schedule take all of its steps."""
    for name in SCHEDULES:
        listed = [at(stage, "share") for stage in at(values, f"{name}.stages") or []]
        known = [value for value in listed if value is not None]
        total = sum(known)
        if listed and len(known) == len(listed) and not isclose(total, 1, abs_tol=_SHARE_TOLERANCE):
            sizes = " + ".join(f"{value:g}" for value in known)
            yield f"{name}.stages: the shares {sizes} sum to {total:g}; they must sum to 1"


def teacherless(values: Values) -> Iterator[str]:
    """The teacher's own training has no teacher, and stays in full precision."""
    for index, stage in enumerate(at(values, "finetune.stages") or []):
        key = f"finetune.stages.{index}"
        for loss in ("attention", "output", "hidden"):
            if (weight := at(stage, f"weights.{loss}") or 0) > 0:
                yield (
                    f"{key}.weights.{loss}={weight}: needs a teacher, and this trains the teacher; "
                    "set it to 0"
                )
        if (relaxation := at(stage, "relaxation")) not in (None, "identity"):
            yield f"{key}.relaxation={relaxation}: a teacher is full-precision; must be identity"


def head_widths(values: Values) -> Iterator[str]:
    """The width of a model divides into its heads."""
    arguments = at(values, "model.arguments") or {}
    for width, heads in _WIDTHS:
        total, count = at(arguments, width), at(arguments, heads)
        if isinstance(total, int) and isinstance(count, int) and (count < 1 or total % count):
            yield (
                f"model.arguments.{width}={total} is no multiple of "
                f"model.arguments.{heads}={count}: heads must have equal widths"
            )


def modality(values: Values) -> Iterator[str]:
    """Task and model are both of texts, or both of images."""
    task, model = at(values, "task.modality"), at(values, "model.modality")
    if task is not None and model is not None and task != model:
        yield (
            f"task.modality={task} does not fit model.modality={model}: "
            f"{at(values, 'task.name')} needs a model= that reads {task}, which "
            f"{at(values, 'model.label')} does not"
        )


def model_directory(values: Values) -> Iterator[str]:
    """A model that is named by a path is there; timm writes local-dir: before one."""
    name = at(values, "model.name")
    place = name.removeprefix(LOCAL_DIRECTORY) if isinstance(name, str) else ""
    is_path = name != place or looks_like_path(place)
    if place and is_path and not Path(place).expanduser().is_dir():
        yield f"model.name={name}: no such directory; give a model directory or a Hub id"


def teacher(values: Values) -> Iterator[str]:
    """A teacher that is named by a path is there."""
    name = at(values, "teacher")
    if name is not None and looks_like_path(name) and not Path(name).expanduser().exists():
        yield (
            f"teacher={name}: there is no such directory; give one, a Hub id (owner/name), or null "
            "to fine-tune the model first"
        )


def unlabelled(values: Values) -> Iterator[str]:
    """Without labels there is nothing to fine-tune a teacher on, and no task loss."""
    if at(values, "task.labels") is not False:
        return
    name = at(values, "task.name")
    if at(values, "teacher") is None:
        yield (
            f"teacher=null: task={name} has no labels to fine-tune one on; give a model that knows "
            "its classes, such as teacher='${model.name}'"
        )
    for index, stage in enumerate(at(values, "schedule.stages") or []):
        if (weight := at(stage, "weights.task") or 0) > 0 and not at(stage, "mixing"):
            yield (
                f"schedule.stages.{index}.weights.task={weight}: task={name} has no labels to "
                "learn from; set it to 0"
            )


def resume(values: Values) -> Iterator[str]:
    """What a run is to continue from is there."""
    place = at(values, "resume")
    if place not in (None, "auto") and not Path(place).expanduser().exists():
        yield f"resume={place}: there is no such file or directory; give one, auto, or null"


RULES: tuple[Rule, ...] = (
    limits,
    minimum_of_a_share,
    room_for_exact_keys,
    whole_projections,
    stages,
    shares,
    teacherless,
    head_widths,
    modality,
    model_directory,
    teacher,
    unlabelled,
    resume,
)
