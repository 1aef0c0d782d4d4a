"""Models of the timm library."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.models import VisionTransformer, is_model
from torch import Tensor, nn

from had.attention import timm as adapter
from had.attention.options import AttentionGeometry
from had.errors import HadError
from had.models.family import Family
from had.models.images import ImagePreprocessor
from had.models.source import ModelSource
from had.paths import LOCAL_DIRECTORY, looks_like_path


class TimmSource(ModelSource):
    """A Vision Transformer that `timm.create_model` builds: architecture, id or directory."""

    def check(self) -> None:
        if self._is_directory():
            self.check_directory(self.name.removeprefix(LOCAL_DIRECTORY))
        elif not self.name.startswith("hf-hub:") and not is_model(self.name):
            close = ", ".join(timm.list_models(f"*{self.name.partition('.')[0]}*")[:5])
            raise HadError(
                f"{self}: timm has no such model"
                + (f"; close to it: {close}" if close else "; see timm.list_models()")
            )
        self._sizes()

    def preprocessor(self) -> ImagePreprocessor:
        model = self._sizes()
        data = timm.data.resolve_model_data_config(model)
        return ImagePreprocessor(
            _input_size(model, data["input_size"]),
            tuple(data["mean"]),
            tuple(data["std"]),
            data["interpolation"],
            data["crop_pct"],
        )

    def build(
        self,
        num_outputs: int,
        label_names: list[str],
        *,
        head: str = "classification",
        complete: bool = False,
    ) -> nn.Module:
        assert head == "classification", head  # tasks on images have no other
        model = self._create(pretrained=self.pretrained, num_classes=num_outputs)
        trained_for = model.pretrained_cfg.get("num_classes")
        if complete and trained_for != num_outputs:
            raise HadError(
                f"{self}: its head has {trained_for} outputs, the task {num_outputs}; "
                "give a model fine-tuned on the task, or teacher=null to fine-tune one here"
            )
        self.check_convertible(model)
        return model

    def _sizes(self) -> nn.Module:
        """The architecture without memory for its weights; images must divide into patches."""
        with torch.device("meta"):
            model = self._create(pretrained=False, num_classes=0)
        patches = getattr(model, "patch_embed", None)
        image, patch = getattr(patches, "img_size", None), getattr(patches, "patch_size", None)
        if image and patch and any(side % edge for side, edge in zip(image, patch, strict=True)):
            raise HadError(
                f"{self}: images of {_times(image)} pixels do not divide into patches of "
                f"{_times(patch)}; make model.arguments.img_size a multiple of {_times(patch)}"
            )
        return model

    def _create(self, pretrained: bool, num_classes: int) -> nn.Module:
        name = self.name
        if self._is_directory():
            name = LOCAL_DIRECTORY + str(Path(self.name.removeprefix(LOCAL_DIRECTORY)).expanduser())
        try:
            return timm.create_model(
                name, pretrained=pretrained, num_classes=num_classes, **self.arguments
            )
        except SafetensorError as error:
            raise HadError(
                f"{self}: its safetensors file is damaged or cut short ({error})"
            ) from error
        except OSError as error:
            raise HadError(f"{self}: {self._unreachable(error)}") from error
        except (ValueError, RuntimeError, TypeError, AssertionError) as error:
            raise HadError(f"{self}: cannot be built: {error}") from error

    def _unreachable(self, error: Exception) -> str:
        first_line = str(error).strip().partition("\n")[0]
        if self._is_directory():
            return f"cannot be loaded: {first_line}"
        return (
            f"its weights are neither in the local cache nor reachable on the Hub ({first_line}); "
            f"give {self.key}=<directory with config.json and model.safetensors>, or go online"
        )

    def _is_directory(self) -> bool:
        return self.name.startswith(LOCAL_DIRECTORY) or looks_like_path(self.name)


class TimmFamily(Family):
    """Forward, conversion and storage of timm models."""

    name: ClassVar[str] = "timm"

    def find_layers(self, model: nn.Module) -> list[AttentionGeometry]:
        return adapter.find_layers(model)

    def attach(self, model: nn.Module, build: Callable[[AttentionGeometry], nn.Module]) -> None:
        adapter.attach(model, build)

    def forward(self, model: nn.Module, inputs: dict[str, Tensor]) -> Any:
        return model(inputs["pixel_values"])

    def logits(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        return self.forward(model, inputs)

    def classes(self, model: nn.Module) -> int:
        count: int = model.num_classes
        return count

    def save(self, model: nn.Module, directory: Path, extra: dict[str, Any]) -> None:
        config = {**describe(model), **extra}
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})

    def load(
        self,
        directory: Path,
        config: dict[str, Any],
        build: Callable[[AttentionGeometry], nn.Module],
        trust_remote_code: bool,
    ) -> tuple[nn.Module, list[str]]:
        model = timm.create_model(
            config["architecture"],
            pretrained=False,
            num_classes=config["num_classes"],
            pretrained_cfg_overlay=config.get("pretrained_cfg"),
            **config.get("model_args", {}),
        )
        adapter.attach(model, build)
        tensors = load_file(directory / "model.safetensors")
        missing, superfluous = model.load_state_dict(tensors, strict=False)
        return model, [*missing, *superfluous]


FAMILY = TimmFamily()


def describe(model: Any) -> dict[str, Any]:
    """What `timm.create_model` builds the model from, as config.json holds it."""
    return {
        "architecture": model.pretrained_cfg["architecture"],
        "model_args": _arguments(model),
        "num_classes": model.num_classes,
        "pretrained_cfg": {**_plain(model.pretrained_cfg), "num_classes": model.num_classes},
    }


def _arguments(model: nn.Module) -> dict[str, Any]:
    """The sizes of a Vision Transformer that may differ from its architecture's defaults."""
    if not isinstance(model, VisionTransformer):
        return {}
    block, patches = model.blocks[0], model.patch_embed
    return {
        "img_size": list(patches.img_size),
        "patch_size": list(patches.patch_size),
        "in_chans": patches.proj.in_channels,
        "embed_dim": model.embed_dim,
        "depth": len(model.blocks),
        "num_heads": block.attn.num_heads,
        "mlp_ratio": block.mlp.fc1.out_features / model.embed_dim,
    }


def _input_size(model: nn.Module, default: Sequence[int]) -> tuple[int, int, int]:
    """(channels, height, width) that the model was built for, where its architecture fixes them."""
    patches = getattr(model, "patch_embed", None)
    channels = getattr(getattr(patches, "proj", None), "in_channels", default[0])
    height, width = getattr(patches, "img_size", None) or default[1:]
    return channels, height, width


def _times(size: tuple[int, int]) -> str:
    return " x ".join(str(side) for side in size)


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """The part of timm's pretrained configuration that describes the input."""
    kept = ("input_size", "mean", "std", "interpolation", "crop_pct", "first_conv", "classifier")
    return {key: settings[key] for key in kept if key in settings}
