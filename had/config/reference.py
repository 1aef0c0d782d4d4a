"""Writes the generated parts of docs/configuration.md: `python -m had.config.reference`.

Keys and types come from the schema and from the classes that `_target_` names, what keys mean from
their docstrings or, for classes of other packages, from the comments of the YAML files.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cached_property, partial
from itertools import zip_longest
from typing import Any, get_args, get_type_hints

from hydra._internal.utils import _locate
from hydra.core.config_loader import ConfigLoader
from omegaconf import OmegaConf

from had.config import schema
from had.config.binding import hints_of, spell, targets
from had.config.catalogue import comments, describe, options, written
from had.config.composing import Composer
from had.config.loading import open_hydra
from had.config.schema import TYPED_GROUPS, TrainConfig
from had.pages import DOCS, fill, table
from had.paths import CONFIG_NAME, config_directory

PAGE = DOCS / "configuration.md"
DIFFERS = "*by option*"

_NOT_FILLED = ("experiment", "hydra")  # groups whose options are not mappings of that name

_NAMES = re.compile(rf"`({'|'.join(schema.NAMES)})`")
_SECTIONS = re.compile(r"^(?:Attributes|Args):\n((?: .*\n?|\n)*)", re.MULTILINE)
_ENTRY = re.compile(r"^    (\w+): (.*(?:\n {5,}.*)*)", re.MULTILINE)


def main() -> None:
    """Rewrite the page."""
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def render(page: str) -> str:
    """The page with every generated part written anew."""
    with open_hydra(str(config_directory())) as hydra:
        reference = Reference(hydra.config_loader, Composer(hydra))
        names = hydra.config_loader.list_groups("")
        groups = {name: partial(reference.group, name) for name in names}
        return fill(page, {"keys": reference.keys, **groups})


@dataclass(frozen=True)
class Reference:
    """What there is to say of the configuration.

    Attributes:
        loader: Hydra's, on the configuration.
        compose: on the same.
    """

    loader: ConfigLoader
    compose: Composer

    def keys(self) -> str:
        """The keys outside of groups."""
        said = comments(written(self.loader, CONFIG_NAME))
        values = OmegaConf.to_container(self.compose([]).cfg)
        hints = get_type_hints(TrainConfig)
        rows = ([_code(key), spell(hints[key]), _shown(values[key]), said[key]] for key in said)
        return table(["key", "type", "default", "meaning"], rows)

    def group(self, name: str) -> str:
        """A group's options, and their keys."""
        found = options(self.loader, name)
        listed = ([_code(each), describe(self.loader, f"{name}/{each}")] for each in found)
        parts = [table([f"{name}=", "what it is"], listed)]
        if name == "experiment":
            return parts[0]
        nodes = {each: self._values[name, each] for each in found}
        if name in TYPED_GROUPS:
            parts += [_matrix(name, nodes), *_schema(name, TYPED_GROUPS[name])]
        else:
            parts += self._classes(name, nodes)
        return "\n\n".join(part for part in parts if part)

    @cached_property
    def _values(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The mapping that each option of each group fills, by group and option.

        Composing takes its time, so the first options of all groups are composed together, then
        the second ones, and so on.
        """
        named = [name for name in self.loader.list_groups("") if name not in _NOT_FILLED]
        columns = [[(name, option) for option in options(self.loader, name)] for name in named]
        found = {}
        for row in zip_longest(*columns):
            chosen = [pair for pair in row if pair is not None]
            cfg = self.compose([f"{name}={option}" for name, option in chosen]).cfg
            for name, option in chosen:
                found[name, option] = dict(OmegaConf.to_container(cfg[name]))
        return found

    def _classes(self, group: str, nodes: Mapping[str, dict[str, Any]]) -> Iterator[str]:
        """The arguments of every class that the options name, or plain keys."""
        said: dict[str, str] = {}
        for option in [*nodes, *(f"{each.rpartition('/')[0]}/_base" for each in nodes)]:
            said = comments(written(self.loader, f"{group}/{option}")) | said
        found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
        for option, node in nodes.items():
            for path, values in targets(node) if _has_target(node) else [("", node)]:
                found.setdefault((path, values.get("_target_", "")), {})[option] = values
        for (path, target), by_option in found.items():
            yield from _class(group, path, target, by_option, said)


def _class(
    group: str,
    path: str,
    target: str,
    by_option: Mapping[str, dict[str, Any]],
    said: Mapping[str, str],
) -> Iterator[str]:
    keys = dict.fromkeys(key for values in by_option.values() for key in values)
    keys = [key for key in keys if key not in ("_target_", "defaults")]
    if not keys:
        return
    where = ".".join(part for part in (group, path) if part)
    hints, told = _told(target)
    rows = []
    for key in keys:
        values = [values[key] for values in by_option.values() if key in values]
        text = told.get(key) or said.get(f"{path}.{key}" if path else key, "")
        kind = spell(hints[key]) if key in hints else ""
        rows.append([_code(f"{where}.{key}"), kind, _common(values), text])
    names = ", ".join(map(_code, by_option))
    yield f"**{_code(target)}**: {names}" if target else f"Keys of {names}:"
    yield table(["key", "type", "value", "meaning"], rows)


def _told(target: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Types and meanings of a class's arguments; nothing of classes that are not ours."""
    if not target.startswith("had."):
        return {}, {}
    hints: dict[str, Any] = {}
    meanings: dict[str, str] = {}
    for kind in reversed(_locate(target).__mro__):
        hints |= hints_of(kind)
        meanings |= documented(kind)
    return hints, meanings


def documented(cls: type) -> dict[str, str]:
    """What the sections Attributes and Args of a class's docstring say, by name."""
    text = inspect.cleandoc(cls.__doc__ or "")
    bodies = [match[1] for match in _SECTIONS.finditer(text)]
    entries = [entry for body in bodies for entry in _ENTRY.findall(body)]
    return {name: _NAMES.sub(_listed, " ".join(said.split()).rstrip(".")) for name, said in entries}


def _listed(match: re.Match[str]) -> str:
    """The values behind a name of the schema, in its place."""
    return ", ".join(f"`{value}`" for value in getattr(schema, match[1]))


def _schema(path: str, kind: type) -> Iterator[str]:
    """The keys of a typed group, and after them those of the mappings inside."""
    hints, said = get_type_hints(kind), documented(kind)
    head = ["key", "type", "default", "meaning"]
    yield table(
        head,
        (
            [_code(f"{path}.{f.name}"), spell(hints[f.name]), _default(f), said[f.name]]
            for f in fields(kind)
        ),
    )
    for field in fields(kind):
        for inner in (hints[field.name], *get_args(hints[field.name])):
            if is_dataclass(inner):
                step = "" if inner is hints[field.name] else ".0"
                yield from _schema(f"{path}.{field.name}{step}", inner)


def _default(field: Field[Any]) -> str:
    if field.default is not MISSING:
        return "" if field.default == "???" else _shown(field.default)
    return ""


def _matrix(group: str, nodes: Mapping[str, dict[str, Any]]) -> str:
    """What the options of a typed group set, side by side."""
    keys = [key for key in next(iter(nodes.values())) if key != "name"]
    rows = ([_code(name), *(_shown(node[key]) for key in keys)] for name, node in nodes.items())
    return table([f"{group}=", *keys], rows)


def _has_target(node: Mapping[str, Any]) -> bool:
    return next(targets(node), None) is not None


def _common(values: Iterable[Any]) -> str:
    shown = {_shown(value) for value in values}
    return shown.pop() if len(shown) == 1 else DIFFERS


def _shown(value: Any) -> str:
    """A value as it would be written; of a list of mappings with names these."""
    if isinstance(value, list) and value and isinstance(value[0], dict) and "name" in value[0]:
        return ", ".join(str(each["name"]) for each in value)
    if value == "???":
        return "*yours*"
    return _code(json.dumps(value) if value is None or isinstance(value, bool) else str(value))


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


if __name__ == "__main__":
    main()
