"""Do the keys of a config group fit the class that its `_target_` names?

Imports that class, so this is for real runs, not for looking at a configuration.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from hydra._internal.utils import _locate
from omegaconf import MISSING

from had.config.wording import nearest
from had.lean_imports import lean_imports

_OURS = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}
_SIMPLE: dict[type, tuple[type, ...]] = {
    bool: (bool,),
    int: (int,),
    float: (int, float),
    str: (str,),
    list: (list,),
    Sequence: (list, str),
    dict: (dict,),
    Mapping: (dict,),
    types.NoneType: (types.NoneType,),
}


def targets(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping with a `_target_`, outermost first, with its dotted key."""
    if "_target_" in values:
        yield path, dict(values)
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from targets(value, f"{path}.{key}" if path else str(key))


def misfits(path: str, values: Mapping[str, Any]) -> Iterator[str]:
    """One sentence for everything in which a mapping does not fit its `_target_`.

    Args:
        path: dotted key of the mapping.
        values: its resolved values; a missing one is "???" and not judged here.
    """
    name = values["_target_"]
    try:
        with lean_imports():
            target = _locate(name)
    except ImportError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        yield f"{path}._target_={name}: cannot be imported ({reason})"
        return
    parameters = _parameters(target)
    keys = [key for key in values if key not in _OURS]
    yield from _unknown(path, name, keys, parameters)
    if not values.get("_partial_"):
        yield from _absent(path, name, keys, parameters)
    hints = hints_of(target)
    for key in keys:
        if key in parameters and key in hints and not _fits(values[key], hints[key]):
            yield f"{path}.{key}={values[key]!r}: {name} takes {spell(hints[key])}"


def _parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(target).parameters)


def hints_of(target: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a callable's parameters, as far as they can be resolved."""
    function = target.__init__ if inspect.isclass(target) else target
    annotated = target if is_dataclass(target) else inspect.unwrap(function)
    try:
        return get_type_hints(annotated)
    except (NameError, TypeError):  # names that the module imports for type checkers only
        return {}


def _unknown(
    path: str, name: str, keys: list[str], parameters: dict[str, inspect.Parameter]
) -> Iterator[str]:
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    for key in keys:
        if key not in parameters:
            yield f"{path}.{key}: {name} has no such argument{nearest(key, parameters)}"


def _absent(
    path: str, name: str, keys: list[str], parameters: dict[str, inspect.Parameter]
) -> Iterator[str]:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    for key, parameter in parameters.items():
        if parameter.kind in named and parameter.default is parameter.empty and key not in keys:
            yield f"{path}.{key}: {name} needs it; add +{path}.{key}=<value>"


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value may be of an annotated type; True where that cannot be told."""
    if value == MISSING or hint is Any:
        return True
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, member) for member in get_args(hint))
    allowed = _SIMPLE.get(origin or hint)
    if allowed is None:
        return True
    return isinstance(value, allowed) and (bool in allowed or not isinstance(value, bool))


def spell(hint: Any) -> str:
    """An annotation as the user would write it: "int | None"."""
    if get_origin(hint) in (Union, types.UnionType):
        return " | ".join(spell(member) for member in get_args(hint))
    if hint is types.NoneType:
        return "null"
    if isinstance(hint, type) and not get_args(hint):
        return hint.__name__
    return re.sub(r"(\w+\.)+", "", str(hint)).replace("NoneType", "null")
