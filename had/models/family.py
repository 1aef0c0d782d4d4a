"""What the framework needs to know of a model library, and which library a model belongs to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from had.attention.options import AttentionGeometry
from had.errors import HadError


class Family(ABC):
    """The operations that differ between model libraries, on models already built."""

    name: ClassVar[str]

    @abstractmethod
    def find_layers(self, model: nn.Module) -> list[AttentionGeometry]:
        """The attention layers in order; HadError names one that cannot be converted."""

    @abstractmethod
    def attach(self, model: nn.Module, build: Callable[[AttentionGeometry], nn.Module]) -> None:
        """Put `build(geometry)` in charge of every layer's attention, in place."""

    @abstractmethod
    def forward(self, model: nn.Module, inputs: dict[str, Tensor]) -> Any:
        """One forward pass, whatever the model's output is."""

    @abstractmethod
    def logits(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """One forward pass of a classifier or regressor: (B, outputs)."""

    @abstractmethod
    def classes(self, model: nn.Module) -> int:
        """How many outputs a classifier has."""

    @abstractmethod
    def save(self, model: nn.Module, directory: Path, extra: dict[str, Any]) -> None:
        """Write config.json (with `extra` in it) and model.safetensors."""

    @abstractmethod
    def load(
        self,
        directory: Path,
        config: dict[str, Any],
        build: Callable[[AttentionGeometry], nn.Module],
        trust_remote_code: bool,
    ) -> tuple[nn.Module, list[str]]:
        """What `save` wrote, with `build(geometry)` attached to its layers before weights are read.

        Args:
            directory: where config.json and model.safetensors lie.
            config: the content of config.json.
            build: makes the module that hangs on an attention layer.
            trust_remote_code: whether code that lies in the directory may run.

        Returns:
            The model, and the names of weights that are missing in the file or superfluous.
        """


_MODULES = {"transformers": "had.models.transformers", "timm": "had.models.timm"}


def family(name: str) -> Family:
    """The family of a model library; the library is imported only now.

    Raises:
        HadError: the library is not supported.
    """
    if name not in _MODULES:
        raise HadError(f"model library {name!r} is not supported; there are {', '.join(_MODULES)}")
    chosen: Family = import_module(_MODULES[name]).FAMILY
    return chosen


def family_of(model: nn.Module) -> Family:
    """The family of a model, found by the package its class (or a base class) comes from.

    Raises:
        HadError: the model is of neither library.
    """
    packages = [kind.__module__.partition(".")[0] for kind in type(model).__mro__]
    known = next((package for package in packages if package in _MODULES), None)
    if known is None:
        raise HadError(f"{type(model).__qualname__}: a model of neither transformers nor timm")
    return family(known)
