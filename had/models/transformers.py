"""Models of the transformers library."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
)

from had.attention import transformers as adapter
from had.attention.options import AttentionGeometry
from had.errors import HadError
from had.models.family import Family
from had.models.heads import HEADS, is_multiple_choice
from had.models.source import ModelSource
from had.paths import looks_like_path

log = logging.getLogger(__name__)

_TEACHERS = "give a model fine-tuned on the task, or teacher=null to fine-tune one here"


class TransformersSource(ModelSource):
    """A model that transformers' Auto classes can load, from the Hub or a directory.

    With `pretrained: false` its name may be an architecture ("llama"), whose sizes are `arguments`.
    """

    def check(self) -> None:
        if looks_like_path(self.name):
            self.check_directory(self.name)
        self._config()

    def positions(self) -> int | None:
        limit: int | None = getattr(self._config(), "max_position_embeddings", None)
        return limit

    def decoder_start(self) -> int | None:
        start: int | None = getattr(self._config(), "decoder_start_token_id", None)
        return start

    def preprocessor(self) -> Any:
        if self._is_architecture:
            raise HadError(
                f"{self}: an architecture, which has no tokenizer; give a model that has one, or, "
                "to a language-model task, task.tokenizer=bytes or task.tokenizer=bpe"
            )
        with self._explained("its tokenizer "):
            tokenizer = AutoTokenizer.from_pretrained(
                self.name, trust_remote_code=self.trust_remote_code
            )
        if len(tokenizer) <= len(tokenizer.all_special_ids):  # made up by the library
            raise HadError(
                f"{self}: there is no tokenizer (tokenizer.json, vocab.txt, ...); copy the model's "
                "tokenizer beside its weights"
            )
        return tokenizer

    def build(
        self,
        num_outputs: int,
        label_names: list[str],
        *,
        head: str = "classification",
        complete: bool = False,
    ) -> nn.Module:
        config = self._config()
        if complete:
            self._check_label_order(config, label_names)
        auto = self._fit(head, config, num_outputs, label_names)
        pretrained = self.pretrained
        model = self._load(auto, config, complete) if pretrained else self._fresh(auto, config)
        self.check_convertible(model)
        return model

    @property
    def _is_architecture(self) -> bool:
        return not self.pretrained and self.name in CONFIG_MAPPING

    def _fit(
        self, head: str, config: PretrainedConfig, num_outputs: int, label_names: list[str]
    ) -> Any:
        """Write the task's sizes into the configuration; returns the Auto class of the head."""
        if (self.modality, head) not in HEADS:
            raise HadError(f"{self}: a model for {self.modality} cannot have the head {head!r}")
        chosen = HEADS[self.modality, head]
        try:
            chosen.fit(config, num_outputs, label_names, fresh=not self.pretrained)
        except HadError as error:
            raise HadError(f"{self}: {error}") from None
        return chosen.auto_for(config)

    def _fresh(self, auto: Any, config: PretrainedConfig) -> PreTrainedModel:
        try:
            model: PreTrainedModel = auto.from_config(
                config, trust_remote_code=self.trust_remote_code
            )
        except (ValueError, RuntimeError, TypeError) as error:
            raise HadError(f"{self}: model.arguments build no model: {error}") from error
        return model

    def _check_label_order(self, config: PretrainedConfig, label_names: list[str]) -> None:
        """Refuse a teacher that knows the task's classes by name, but in another order."""
        theirs = [str(config.id2label[index]).lower() for index in sorted(config.id2label)]
        ours = [name.lower() for name in label_names]
        if theirs != ours and sorted(theirs) == sorted(ours):
            raise HadError(
                f"{self}: its classes come as {', '.join(theirs)}, the task's as "
                f"{', '.join(ours)}; reorder the rows of its head and its id2label"
            )

    def _load(self, auto: Any, config: PretrainedConfig, complete: bool) -> PreTrainedModel:
        with self._explained(), quietly():
            model, report = auto.from_pretrained(
                self.name,
                config=config,
                dtype="float32",
                use_safetensors=True,
                trust_remote_code=self.trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # the reasons are given below
            )
        missing = sorted(report["missing_keys"])
        mismatched = sorted(report["mismatched_keys"])
        self._check_body(model, missing, [name for name, *_ in mismatched])
        if complete:
            self._check_head(missing, mismatched)
        elif mismatched:
            log.info("%s: made for other labels; its head is trained anew", self)
        return model

    def _check_head(self, missing: list[str], mismatched: list[tuple[Any, ...]]) -> None:
        """Refuse a teacher whose head is of another task, or was never trained."""
        if mismatched:
            name, found, wanted = mismatched[0]
            raise HadError(
                f"{self}: its head ({name}) has {found[0]} outputs, the task {wanted[0]}; "
                f"{_TEACHERS}"
            )
        if missing:
            raise HadError(
                f"{self}: has no trained weights for {', '.join(missing[:3])}; {_TEACHERS}"
            )

    def _check_body(
        self, model: PreTrainedModel, missing: list[str], mismatched: list[str]
    ) -> None:
        """Refuse a file that lacks what only a head may lack, or a pooler that some have not."""
        body = f"{model.base_model_prefix}."
        absent = [name for name in missing if name.startswith(body) and "pooler" not in name]
        unfit = [name for name in mismatched if name.startswith(body)]
        if absent or unfit:
            raise HadError(
                f"{self}: its weights are not those of its config.json and model.arguments: "
                f"{len(absent)} are missing and {len(unfit)} have another shape, the first is "
                f"{[*absent, *unfit][0]}"
            )

    def _config(self) -> PretrainedConfig:
        if self._is_architecture:
            return AutoConfig.for_model(self.name, **self.arguments)
        with self._explained():
            return AutoConfig.from_pretrained(
                self.name, trust_remote_code=self.trust_remote_code, **self.arguments
            )

    @contextmanager
    def _explained(self, part: str = "") -> Iterator[None]:
        """Turn the library's errors of loading a part into one message with the way out."""
        try:
            yield
        except SafetensorError as error:
            raise HadError(
                f"{self}: its safetensors file is damaged or cut short ({error}); "
                "copy or download it again"
            ) from error
        except (OSError, ValueError, RuntimeError) as error:
            raise HadError(f"{self}: {self._reason(part, error)}") from error

    def _reason(self, part: str, error: Exception) -> str:
        first_line = str(error).strip().partition("\n")[0]
        if looks_like_path(self.name):
            return f"{part}cannot be loaded: {first_line}"
        return (
            f"neither a local directory nor reachable on the Hub ({first_line}); give "
            f"{self.key}=<directory with config.json and model.safetensors>, or go online"
        )


class ConvertedSource(TransformersSource):
    """A source that changes what it reads: models trained from it are read back as they are."""

    def at(self, place: str, key: str = "teacher") -> ModelSource:
        other = TransformersSource(
            label=self.label, name=place, modality=self.modality, geometry=self.geometry
        )
        other.key = key
        return other


class TransformersFamily(Family):
    """Forward, conversion and storage of transformers models."""

    name: ClassVar[str] = "transformers"

    def find_layers(self, model: nn.Module) -> list[AttentionGeometry]:
        return adapter.find_layers(model)

    def attach(self, model: nn.Module, build: Callable[[AttentionGeometry], nn.Module]) -> None:
        adapter.attach(model, build)

    def forward(self, model: nn.Module, inputs: dict[str, Tensor]) -> Any:
        if is_multiple_choice(type(model).__name__):
            # Every sequence is the only choice of its question: tasks do the comparing.
            inputs = {name: tensor[:, None] for name, tensor in inputs.items()}
        return model(**inputs)

    def logits(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        # A generating model keeps all its keys and values for later, unless told that it need not.
        unless = {"use_cache": False} if model.can_generate() else {}
        return self.forward(model, {**inputs, **unless}).logits

    def classes(self, model: nn.Module) -> int:
        count: int = model.config.num_labels
        return count

    def save(self, model: nn.Module, directory: Path, extra: dict[str, Any]) -> None:
        for key, value in extra.items():
            setattr(model.config, key, value)
        with quietly():
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
        with quietly():
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
def quietly() -> Iterator[None]:
    """Hide bars of a second and the load report: a fresh head is what everyone here expects."""
    before, bars = (
        transformers.logging.get_verbosity(),
        transformers.logging.is_progress_bar_enabled(),
    )
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)
        if bars:
            transformers.logging.enable_progress_bar()
