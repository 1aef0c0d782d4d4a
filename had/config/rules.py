"""The cross-field rules: what types cannot say.

A rule takes the resolved values and yields one sentence for each violation: the key, the value and
the way out. A value that is missing or of the wrong type is reported elsewhere; rules skip it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from had.config import BACKENDS, DECAYS, FINAL_RELAXATIONS, RELAXATIONS, SCALES, WEIGHTINGS
from had.config.wording import one_of
from had.paths import looks_like_path

Values = dict[str, Any]
Rule = Callable[[Values], Iterable[str]]

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
PRECISIONS = (
    *("32-true", "bf16-mixed", "16-mixed", "64-true", "bf16-true", "16-true"),
    *("32", "bf16", "16", "64", "transformer-engine", "transformer-engine-float16"),
)
SCHEDULES = ("schedule", "finetune")

_SHARE_TOLERANCE = 1e-6  # shares are decimals that people add up
_ANNEALED = ("soft", "sharp")  # relaxations with a sharpness c
_WIDTHS = (("embed_dim", "num_heads"), ("hidden_size", "num_attention_heads"))
_DISTRIBUTED = ("ddp", "fsdp", "deepspeed", "had.lightning.sharding.")


def at(values: Values, key: str) -> Any:
    """The value at a dotted key; None where there is none."""
    node: Any = values
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return None if node == MISSING else node


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


def _schedule_limits(name: str) -> list[Limit]:
    return [
        above_zero(f"{name}.epochs", "must be greater than 0 (see task.epochs)"),
        above_zero(
            f"{name}.learning_rate", "must be greater than 0 (it follows task.learning_rate)"
        ),
        above_zero(f"{name}.epochs_factor"),
        above_zero(f"{name}.learning_rate_factor"),
        share(f"{name}.warmup"),
        share(f"{name}.final_factor"),
        at_least(f"{name}.weight_decay", 0),
        at_least(f"{name}.attention_stride", 1),
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
    for limit in LIMITS:
        value = at(values, limit.key)
        if value is not None and not limit.holds(value):
            yield f"{limit.key}={value}: {limit.advice(value)}"


def minimum_of_a_share(values: Values) -> Iterator[str]:
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
    if mixing and at(stage, "weights.task"):
        yield (
            f"{key}.mixing={mixing}: mixed examples have no labels; set it to 0, or "
            f"{key}.weights.task=0"
        )
    weights = at(stage, "weights") or {}
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
    arguments = at(values, "model.arguments") or {}
    for width, heads in _WIDTHS:
        total, count = at(arguments, width), at(arguments, heads)
        if isinstance(total, int) and isinstance(count, int) and (count < 1 or total % count):
            yield (
                f"model.arguments.{width}={total} is no multiple of "
                f"model.arguments.{heads}={count}: heads must have equal widths"
            )


def modality(values: Values) -> Iterator[str]:
    task, model = at(values, "task.modality"), at(values, "model.modality")
    if task is not None and model is not None and task != model:
        yield (
            f"task.modality={task} does not fit model.modality={model}: "
            f"{at(values, 'task.name')} needs a model= that reads {task}, which "
            f"{at(values, 'model.label')} does not"
        )


def model_directory(values: Values) -> Iterator[str]:
    name = at(values, "model.name")
    if isinstance(name, str) and looks_like_path(name) and not Path(name).expanduser().is_dir():
        yield f"model.name={name}: no such directory; give a model directory or a Hub id"


def teacher(values: Values) -> Iterator[str]:
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
        if (weight := at(stage, "weights.task") or 0) > 0:
            yield (
                f"schedule.stages.{index}.weights.task={weight}: task={name} has no labels to "
                "learn from; set it to 0"
            )


def resume(values: Values) -> Iterator[str]:
    place = at(values, "resume")
    if place not in (None, "auto") and not Path(place).expanduser().exists():
        yield f"resume={place}: there is no such file or directory; give one, auto, or null"


def own_checkpoints(values: Values) -> Iterator[str]:
    """A sweep's jobs cannot all continue the same run."""
    if (place := at(values, "resume")) not in (None, "auto"):
        yield (
            f"resume={place}: all jobs of a sweep (-m) would continue this one run; with "
            "resume=auto each continues in its own directory"
        )


def one_job_at_a_time(values: Values) -> Iterator[str]:
    """Resuming is for one run, or for jobs that a launcher starts again in their directories."""
    if at(values, "resume") == "auto":
        yield (
            "resume=auto: a sweep (-m) cannot be resumed in one process; resume its runs one by "
            "one, or use had sweep, which continues by itself"
        )


def one_device_a_job(values: Values) -> Iterator[str]:
    """The processes of one job would each walk through the whole sweep."""
    devices, strategy = at(values, "trainer.devices"), at(values, "trainer.strategy")
    strategy = at(strategy, "_target_") if isinstance(strategy, dict) else str(strategy)
    if _several(devices) or strategy.startswith(_DISTRIBUTED):
        yield (
            f"trainer.devices={devices}, trainer.strategy={strategy}: a job of a sweep (-m) on "
            "this machine runs on one device; start the jobs one by one, use "
            "hydra/launcher=submitit_slurm, or set trainer.devices=1 trainer.strategy=auto"
        )


def a_number_of_devices(values: Values) -> Iterator[str]:
    """Slurm starts a task for each device, before anybody has counted them."""
    devices = at(values, "trainer.devices")
    if not (isinstance(devices, int) and devices >= 1):
        yield (
            f"trainer.devices={devices}: Slurm is asked for a task for each device of a node, so "
            "it must be their number, as in trainer.devices=4"
        )


def _several(devices: Any) -> bool:
    if isinstance(devices, list):
        return len(devices) > 1
    return str(devices) == "-1" or (str(devices).isdecimal() and int(devices) > 1)


RULES: tuple[Rule, ...] = (
    *(limits, minimum_of_a_share, room_for_exact_keys, stages, shares, teacherless),
    *(head_widths, modality, model_directory, teacher, unlabelled, resume),
)
SWEEP_RULES: tuple[Rule, ...] = (own_checkpoints,)
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
_SUBMITIT = "hydra_plugins.hydra_submitit_launcher.submitit_launcher"
LAUNCHER_RULES: dict[str, tuple[Rule, ...]] = {
    BASIC_LAUNCHER: (one_job_at_a_time, one_device_a_job),
    f"{_SUBMITIT}.LocalLauncher": (one_device_a_job,),
    f"{_SUBMITIT}.SlurmLauncher": (a_number_of_devices,),
}
"""What a sweep's launcher, by its `_target_`, cannot do."""
