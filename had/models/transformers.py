"""Models of the transformers library."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
)

from had.attention import transformers as adapter
from had.attention.module import AttentionGeometry
from had.errors import HadError
from had.models.family import Family
from had.models.source import ModelSource, require_directory
from had.paths import looks_like_path

log = logging.getLogger(__name__)

_AUTO_CLASSES = {
    "text": AutoModelForSequenceClassification,
    "image": AutoModelForImageClassification,
}


class TransformersSource(ModelSource):
    """A model that transformers' Auto classes can load, from the Hub or a directory."""

    def check(self) -> None:
        self._config()

    def preprocessor(self) -> Any:
        with _explained(self.name):
            return AutoTokenizer.from_pretrained(
                self.name, trust_remote_code=self.trust_remote_code
            )

    def build(
        self, num_outputs: int, label_names: list[str], *, complete: bool = False
    ) -> nn.Module:
        config = self._config()
        config.num_labels = num_outputs
        if len(label_names) == num_outputs:
            config.id2label = dict(enumerate(label_names))
            config.label2id = {name: index for index, name in enumerate(label_names)}
        auto = _AUTO_CLASSES[self.modality]
        if not self.pretrained:
            return auto.from_config(config, trust_remote_code=self.trust_remote_code)
        with _explained(self.name), _quiet_loading():
            model, report = auto.from_pretrained(
                self.name,
                config=config,
                dtype="float32",
                use_safetensors=True,
                trust_remote_code=self.trust_remote_code,
                output_loading_info=True,
            )
        if complete and report["missing_keys"]:
            missing = ", ".join(sorted(report["missing_keys"])[:3])
            raise HadError(
                f"teacher={self.name}: has no trained weights for {missing}; "
                "give a model fine-tuned on the task, or teacher=null to fine-tune one here"
            )
        return model

    def _config(self) -> PretrainedConfig:
        if looks_like_path(self.name):
            require_directory(self.name, "config.json")
        with _explained(self.name):
            return AutoConfig.from_pretrained(
                self.name, trust_remote_code=self.trust_remote_code, **self.arguments
            )


class TransformersFamily(Family):
    """Forward, conversion and storage of transformers models."""

    name: ClassVar[str] = "transformers"

    def find_layers(self, model: nn.Module) -> list[AttentionGeometry]:
        return adapter.find_layers(model)

    def attach(self, model: nn.Module, build: Callable[[AttentionGeometry], nn.Module]) -> None:
        adapter.attach(model, build)

    def forward(self, model: nn.Module, inputs: dict[str, Tensor]) -> Any:
        return model(**inputs)

    def logits(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        return self.forward(model, inputs).logits

    def save(self, model: nn.Module, directory: Path, extra: dict[str, Any]) -> None:
        for key, value in extra.items():
            setattr(model.config, key, value)
        model.save_pretrained(directory)

    def load(
        self,
        directory: Path,
        config: dict[str, Any],
        build: Callable[[AttentionGeometry], nn.Module],
        trust_remote_code: bool,
    ) -> tuple[nn.Module, list[str]]:
        kind = getattr(transformers, (config.get("architectures") or [""])[0], None)
        if kind is None:
            raise HadError(f"{directory / 'config.json'}: architecture unknown to transformers")
        model, report = _with_cores(kind, build).from_pretrained(
            directory,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
        model.__class__ = kind
        return model, [*report["missing_keys"], *report["unexpected_keys"]]


FAMILY = TransformersFamily()


def _with_cores(
    kind: type[PreTrainedModel], build: Callable[[AttentionGeometry], nn.Module]
) -> type[PreTrainedModel]:
    """A model class that attaches the cores while it is built, so that from_pretrained fills them.

    Files keep the names of the Hub, which differ from those of live modules in some families; only
    transformers' own loading knows the way back.
    """

    def initialise(self: PreTrainedModel, *args: Any, **kwargs: Any) -> None:
        kind.__init__(self, *args, **kwargs)
        adapter.attach(self, build)

    members = {"__init__": initialise, "__module__": kind.__module__}
    return type(kind.__name__, (kind,), members)


@contextmanager
def _explained(name: str):
    """Turn the library's loading errors into one message with the way out."""
    try:
        yield
    except SafetensorError as error:
        raise HadError(
            f"model.name={name}: its safetensors file is damaged or cut short ({error}); "
            "copy or download it again"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise HadError(f"model.name={name}: {_reason(name, error)}") from error


def _reason(name: str, error: Exception) -> str:
    first_line = str(error).strip().partition("\n")[0]
    if looks_like_path(name):
        return f"cannot be loaded: {first_line}"
    return (
        f"neither a local directory nor reachable on the Hub ({first_line}); "
        "give model.name=<directory with config.json and model.safetensors>, or go online"
    )


@contextmanager
def _quiet_loading():
    """Hide the load report: a fresh classification head is what everyone here expects."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)
