"""The typed shape of a run's configuration, and its way into plain dataclasses.

Groups that belong to a class (task, model, trainer, logger, callbacks, hardware) are open mappings
here: their keys are the arguments of their `_target_`, and `had.config.validate` checks them.
Everything else is typed: Hydra refuses a wrong type or an unknown key while it composes.

This module is imported by every command, so it imports nothing heavy.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from had.config.catalogue import keys, listing
from had.paths import first_directory

# What the parts that implement these names offer; tests hold the two against each other.
RELAXATIONS = ("identity", "soft", "sharp", "sign", "sign_absolute")
FINAL_RELAXATIONS = ("sign", "identity")
WEIGHTINGS = ("softmax", "binary")
SCALES = ("frozen_sigma", "head_scale", "mean_abs")
DECAYS = ("linear", "cosine", "constant", "late")
BACKENDS = (
    "auto",
    "cuda_decode",
    "triton_decode",
    "triton",
    "triton_levels",
    "cpu",
    "eager",
    "reference",
)
NAMES = ("RELAXATIONS", "FINAL_RELAXATIONS", "WEIGHTINGS", "SCALES", "DECAYS", "BACKENDS")


@dataclass
class StageWeights:
    """What each loss counts in a stage.

    Attributes:
        attention: divergence of the attention rows.
        output: divergence of the outputs.
        hidden: squared difference of the hidden states, relative to their size.
        task: the task's own loss on its labels.
    """

    attention: float = 1.0
    output: float = 1.0
    hidden: float = 0.0
    task: float = 0.0


@dataclass
class StageConfig:
    """One stage of a schedule.

    Attributes:
        name: what the stage is called in logs.
        relaxation: what stands for the sign, one of `RELAXATIONS`.
        c: sharpness at the stage's start and end, geometric between; None where the relaxation
            has none.
        share: part of the schedule's steps; the shares of a schedule sum to 1.
        weights: of the losses.
        learning_rate_factor: times the schedule's learning rate.
        mixing: share of a batch's examples that get a part of another one (`Task.mix`). Where
            mixtures have no labels, as those of texts, the stage goes without the task loss.
    """

    name: str = MISSING
    relaxation: str = MISSING
    c: list[float] | None = None
    share: float = MISSING
    weights: StageWeights = field(default_factory=StageWeights)
    learning_rate_factor: float = 1.0
    mixing: float = 0.0


@dataclass
class ScheduleConfig:
    """How a model is trained.

    Attributes:
        name: what the schedule is called in records.
        epochs: passes over the training data, the task's.
        epochs_factor: the schedule takes epochs times this.
        learning_rate: the task's.
        learning_rate_factor: the peak is learning_rate times this.
        query_key_learning_rate: the peak for projections and scales of queries and keys; None: as
            all else.
        warmup: share of the steps in which the learning rate rises to its peak.
        decay: its path from there, one of `DECAYS`.
        final_factor: where the decay ends, times the peak.
        weight_decay: of AdamW.
        betas: of AdamW: what its running means of gradients and of their squares keep in a step.
        dropout: whether the model's dropout is active.
        attention_stride: the attention loss compares every so-manieth query; 1: all of them.
        curriculum_skip: share of the task's curriculum that is left out, from its beginning on.
        stages: in order; none means no training.
    """

    name: str = MISSING
    epochs: float = MISSING
    epochs_factor: float = 1.0
    learning_rate: float = MISSING
    learning_rate_factor: float = 1.0
    query_key_learning_rate: float | None = None
    warmup: float = 0.0
    decay: str = "linear"
    final_factor: float = 0.0
    weight_decay: float = 0.0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    dropout: bool = False
    attention_stride: int = 1
    curriculum_skip: float = 0.0
    stages: list[StageConfig] = field(default_factory=list)


@dataclass
class BinarizationConfig:
    """How queries and keys become one bit.

    Attributes:
        name: what the recipe is called in records.
        scale: how sigma is found, one of `SCALES`.
        calibration_batches: training batches that sigma is measured on.
        ste_clip: the sign's gradient passes where |x| <= ste_clip * sigma; None: everywhere.
        relaxation: what the finished student computes with, one of `FINAL_RELAXATIONS`.
        weights: how kept keys weigh, one of `WEIGHTINGS`.
        recent: keys of a query, its last ones, that stay in full precision and are always kept.
        position_bias: whether patches of images get a learned bias of their relative positions.
    """

    name: str = MISSING
    scale: str = MISSING
    calibration_batches: int = 100
    ste_clip: float | None = None
    relaxation: str = "sign"
    weights: str = "softmax"
    recent: int = 0
    position_bias: bool = False


@dataclass
class SparsityConfig:
    """How many keys a query keeps.

    Attributes:
        n: keys that a query keeps, an integer >= 1 or a fraction in (0, 1] of those it may see.
        minimum: keys that it keeps at least where n is a fraction and it may see as many.
    """

    n: int | float = MISSING
    minimum: int = 1


@dataclass
class PathsConfig:
    """Directories.

    Attributes:
        data: where tasks and models look for local files.
        cache: where fine-tuned teachers are kept.
    """

    data: str = MISSING
    cache: str = MISSING


@dataclass
class TrainConfig:
    """The whole configuration; see conf/train.yaml."""

    task: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    sparsity: SparsityConfig = field(default_factory=SparsityConfig)
    binarization: BinarizationConfig = field(default_factory=BinarizationConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    finetune: ScheduleConfig = field(default_factory=ScheduleConfig)
    trainer: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    hardware: dict[str, Any] | None = None
    paths: PathsConfig = field(default_factory=PathsConfig)
    backend: str = "auto"
    cuda_graphs: bool = True
    compile: bool = False
    seed: int = 0
    teacher: str | None = None
    resume: str | None = None
    run_dir: str = MISSING


@dataclass
class Settings:
    """The typed groups of a configuration, resolved and free of Hydra."""

    sparsity: SparsityConfig
    binarization: BinarizationConfig
    schedule: ScheduleConfig
    finetune: ScheduleConfig
    paths: PathsConfig


TYPED_GROUPS: dict[str, type] = {
    "sparsity": SparsityConfig,
    "binarization": BinarizationConfig,
    "schedule": ScheduleConfig,
    "finetune": ScheduleConfig,
    "paths": PathsConfig,
}


def to_dataclasses(cfg: DictConfig) -> Settings:
    """The typed groups as plain dataclasses, interpolations resolved.

    Args:
        cfg: a composed configuration, or the resolved one of a run directory, which has lost its
            types on the way through YAML.

    Raises:
        omegaconf.errors.OmegaConfBaseException: a value is missing or of the wrong type;
            `had.config.validate.check` says so in the user's words.
    """
    return Settings(**{name: _typed(schema, cfg[name]) for name, schema in TYPED_GROUPS.items()})


def _typed(schema: type, node: DictConfig) -> Any:
    plain = OmegaConf.to_container(node, resolve=True)
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), plain))


def rest(*shares: float) -> float:
    """What a few shares leave of the whole: schedules whose shares are searched sum to 1 by it."""
    return 1 - sum(shares)


def register() -> None:
    """Make the schema and the resolvers that conf/ asks for known to Hydra."""
    ConfigStore.instance().store(name="schema", node=TrainConfig)
    OmegaConf.register_new_resolver("had.options", listing, replace=True)
    OmegaConf.register_new_resolver("had.rest", rest, replace=True)
    OmegaConf.register_new_resolver("had.keys", keys, replace=True)
    OmegaConf.register_new_resolver("had.first_directory", first_directory, replace=True)
    # Our files for submitit's launchers bear their names, and leave the types to submitit's own.
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/submitit")
