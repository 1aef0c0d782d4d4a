"""A run's configuration: its typed shape, and everything that can be wrong with it."""

from had.config.schema import (
    BACKENDS,
    DECAYS,
    RELAXATIONS,
    SCALES,
    TYPED_GROUPS,
    BinarizationConfig,
    PathsConfig,
    ScheduleConfig,
    Settings,
    SparsityConfig,
    StageConfig,
    StageWeights,
    TrainConfig,
    register,
    to_dataclasses,
)

__all__ = [
    "BACKENDS",
    "DECAYS",
    "RELAXATIONS",
    "SCALES",
    "TYPED_GROUPS",
    "BinarizationConfig",
    "PathsConfig",
    "ScheduleConfig",
    "Settings",
    "SparsityConfig",
    "StageConfig",
    "StageWeights",
    "TrainConfig",
    "register",
    "to_dataclasses",
]
