"""Where a full-precision model comes from: one class a model library, one YAML a model."""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from had.errors import HadError
from had.models.family import family_of

CONFIG = "config.json"

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

    Attributes:
        key: what the user named this place by, for messages: "model.name", or "teacher".
    """

    key = "model.name"

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
            HadError: the name leads nowhere, its configuration cannot be built, or it is a student.
        """

    @abstractmethod
    def preprocessor(self) -> Any:
        """What tasks encode raw examples with: a tokenizer, or an image transform's settings."""

    def positions(self) -> int | None:
        """The longest sequence the model takes; None where nothing limits it (after `check`)."""
        return None

    def decoder_start(self) -> int | None:
        """The token that a decoder beside an encoder begins with; None: not known, or none."""
        return None

    @abstractmethod
    def build(
        self,
        num_outputs: int,
        label_names: list[str],
        *,
        head: str = "classification",
        complete: bool = False,
    ) -> nn.Module:
        """The full-precision model with a head of `num_outputs` logits.

        Args:
            num_outputs: classes, 1 for regression, or tokens of the vocabulary.
            label_names: of the classes, kept in the model's configuration where it has a place.
            head: "classification" (also of one output), "choice", "causal_lm" or "seq2seq".
            complete: refuse weights that lack a trained head, as a finished teacher must not.

        Raises:
            HadError: weights are missing, damaged, or do not fit the architecture; or an attention
                layer cannot be converted, which is better known before a teacher is trained.
        """

    def at(self, place: str, key: str = "teacher") -> ModelSource:
        """The same source, read from another directory or id, which the user named by `key`."""
        other = type(self)(
            label=self.label,
            name=place,
            modality=self.modality,
            trust_remote_code=self.trust_remote_code,
            arguments=self.arguments,
            geometry=self.geometry,
        )
        other.key = key
        return other

    def __str__(self) -> str:
        """As the user wrote it: what every message about this source begins with."""
        return f"{self.key}={self.name}"

    def check_directory(self, name: str) -> None:
        """Look at a directory's files, not into its weights.

        Raises:
            HadError: there is no such directory, a file that is needed is not in it, or it holds a
                student.
        """
        path = Path(name).expanduser()
        if not path.is_dir():
            raise HadError(f"{self}: no such directory; give a model directory or a Hub id")
        if not (path / CONFIG).is_file():
            raise HadError(
                f"{self}: not a model directory, it has no {CONFIG}; give the directory that holds "
                f"{CONFIG} and model.safetensors, or a Hub id"
            )
        if _is_student(path / CONFIG):
            raise HadError(
                f"{self}: a student with Hamming attention; a full-precision model is needed here"
            )
        if self.pretrained and not any(path.glob("*.safetensors")):
            pickled = ", ".join(sorted(file.name for file in path.glob("*.bin")))
            reason = f"; {pickled} is not read, for pickled weights can run code" if pickled else ""
            raise HadError(
                f"{self}: there is no *.safetensors in it{reason}; give weights in that form"
            )

    def check_convertible(self, model: nn.Module) -> None:
        """Refuse a model whose attention no student can take over.

        Raises:
            HadError: naming the layer.
        """
        try:
            family_of(model).find_layers(model)
        except HadError as error:
            raise HadError(f"{self}: {error}; choose another model") from None


def _is_student(config: Path) -> bool:
    try:
        return "had" in json.loads(config.read_text())
    except ValueError:
        return False  # the library says what is wrong with it
