"""Where a full-precision model comes from: one class a model library, one YAML a model."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from had.errors import HadError

log = logging.getLogger(__name__)


class ModelSource(ABC):
    """A pretrained model as `conf/model/*.yaml` describes it; nothing is read before `check`.

    Args:
        label: short name, used in run directories and records.
        name: an id on the Hub, an architecture's name, or a directory.
        modality: "text" or "image", what its tasks must provide.
        pretrained: False builds the architecture with fresh weights.
        trust_remote_code: whether code that lies beside the weights may run.
        arguments: fields of the architecture's configuration to change.
        geometry: sizes of its attention (`had.hardware.geometry`), by which `had cost` prices it
            unseen; None: they must be read from its files.
    """

    def __init__(
        self,
        *,
        label: str,
        name: str,
        modality: str,
        pretrained: bool = True,
        trust_remote_code: bool = False,
        arguments: Mapping[str, Any] | None = None,
        geometry: Mapping[str, Any] | None = None,
    ) -> None:
        self.label = label
        self.modality = modality
        self.pretrained = pretrained
        self.trust_remote_code = trust_remote_code
        self.arguments = dict(arguments or {})
        self.geometry = geometry
        self.name = name

    @abstractmethod
    def check(self) -> None:
        """Read the configuration, not the weights.

        Raises:
            HadError: the name leads nowhere, or its configuration cannot be built.
        """

    @abstractmethod
    def preprocessor(self) -> Any:
        """What tasks encode raw examples with: a tokenizer, or an image transform's settings."""

    @abstractmethod
    def build(
        self, num_outputs: int, label_names: list[str], *, complete: bool = False
    ) -> nn.Module:
        """The full-precision model with a head of `num_outputs` logits.

        Args:
            num_outputs: classes, or 1 for regression.
            label_names: of the classes, kept in the model's configuration where it has a place.
            complete: refuse weights that lack a trained head, as a finished teacher must not.

        Raises:
            HadError: weights are missing, damaged, or do not fit the architecture.
        """

    def at(self, place: str) -> ModelSource:
        """The same source, read from another directory or id."""
        return type(self)(
            label=self.label,
            name=place,
            modality=self.modality,
            trust_remote_code=self.trust_remote_code,
            arguments=self.arguments,
            geometry=self.geometry,
        )


def require_directory(name: str, needed: str) -> None:
    """Raise HadError if a name that must be a directory is none, or lacks the file `needed`."""
    path = Path(name).expanduser()
    if not path.is_dir():
        raise HadError(f"model.name={name}: no such directory; give a model directory or a Hub id")
    if not (path / needed).is_file():
        raise HadError(f"model.name={name}: not a model directory, it has no {needed}")
