"""What differs between model libraries when a student is exported."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import transformers
from safetensors.torch import save_file
from torch import nn

from had.errors import HadError

_PIPELINES = {
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForMultipleChoice": "multiple-choice",
    "AutoModelForCausalLM": "text-generation",
    "AutoModelForSeq2SeqLM": "text2text-generation",
    "AutoModelForImageClassification": "image-classification",
    "AutoModel": "feature-extraction",
}
"""Auto classes that load students, and what the Hub calls what they are for."""


@dataclass(frozen=True)
class Target:
    """What an exported student is made of.

    Attributes:
        base: the class of transformers that it extends.
        config: that class's configuration.
        model_type: of the configuration.
        auto: the Auto class that loads it.
        parts: modules of the template that its code consists of.
        packages: that it needs.
    """

    base: str
    config: str
    model_type: str
    auto: str
    parts: tuple[str, ...]
    packages: tuple[str, ...]

    @property
    def pipeline(self) -> str:
        """What the Hub calls what it is for."""
        return _PIPELINES[self.auto]


class Exporter(ABC):
    """Exports the students of one model library."""

    @abstractmethod
    def target(self, model: nn.Module) -> Target:
        """What the student becomes.

        Raises:
            HadError: transformers has no class that the exported student could extend.
        """

    @abstractmethod
    def save(self, model: nn.Module, directory: Path) -> None:
        """Write config.json and model.safetensors under the names of the class's live modules."""


class TransformersExporter(Exporter):
    """Students of transformers extend the class they have."""

    def target(self, model: nn.Module) -> Target:
        base, config = type(model), type(cast(transformers.PreTrainedModel, model).config)
        if getattr(transformers, base.__name__, None) is not base:
            raise HadError(f"{base.__name__}: its code is not part of transformers; not exported")
        return Target(
            base.__name__,
            config.__name__,
            config.model_type,
            _auto_class(base, config),
            ("attention", "transformers"),
            ("torch", "transformers"),
        )

    def save(self, model: nn.Module, directory: Path) -> None:
        # The names of the Hub are for classes that transformers knows how to rename for.
        cast(Any, model).save_pretrained(directory, save_original_format=False)


class TimmExporter(Exporter):
    """Students of timm extend transformers' wrapper around timm."""

    def target(self, model: nn.Module) -> Target:
        return Target(
            "TimmWrapperForImageClassification",
            "TimmWrapperConfig",
            "timm_wrapper",
            "AutoModelForImageClassification",
            ("attention", "timm"),
            ("torch", "transformers", "timm"),
        )

    def save(self, model: nn.Module, directory: Path) -> None:
        from had.models.timm import describe

        config = describe(model)
        preprocessing, sizes = config["pretrained_cfg"], config["model_args"]
        if sizes:
            preprocessing["input_size"] = [sizes["in_chans"], *sizes["img_size"]]
        names = {name: f"timm_model.{name}" for name in model.state_dict()}
        tensors = {names[name]: each.contiguous() for name, each in model.state_dict().items()}
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        if preprocessing["input_size"][0] == len(preprocessing["mean"]):
            # transformers looks for it in either file, and for what it needs in config.json.
            kind = {"image_processor_type": "TimmWrapperImageProcessor"}
            _write(directory / "preprocessor_config.json", kind)
            config |= kind
        _write(directory / "config.json", config)


def _write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n")


EXPORTERS: Mapping[str, Exporter] = {
    "transformers": TransformersExporter(),
    "timm": TimmExporter(),
}
"""By the name of the family."""


def _auto_class(base: type, config: type) -> str:
    """The Auto class that gives this very class for its configuration; AutoModel if none does."""
    for name in _PIPELINES:
        mapping = getattr(transformers, name)._model_mapping
        found = mapping.get(config, ())
        if base in (found if isinstance(found, tuple) else (found,)):
            return name
    return "AutoModel"
