"""The only place where configuration becomes objects."""

from __future__ import annotations

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from had.errors import HadError


def build(node: DictConfig | dict[str, Any], **extra: Any) -> Any:
    """The object a node with `_target_` describes; `extra` are objects that no YAML can hold.

    Raises:
        HadError: a constructor refused its arguments; its message is kept.
    """
    try:
        return instantiate(node, _convert_="all", **extra)
    except InstantiationException as error:
        if isinstance(error.__cause__, HadError):
            raise error.__cause__ from None
        raise HadError(f"{_target(node)}: {error}") from error


def build_all(nodes: DictConfig | dict[str, Any] | None) -> list[Any]:
    """One object for each entry of a group such as `callbacks`, without those set to null."""
    return [build(node) for node in (nodes or {}).values() if node]


def _target(node: DictConfig | dict[str, Any]) -> str:
    return str(OmegaConf.select(OmegaConf.create(node), "_target_"))
