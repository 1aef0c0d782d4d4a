"""What there is to choose from: the options of a config group, each with its one line.

An option describes itself: the comment that opens its YAML file begins with one sentence on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from itertools import takewhile
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigSource

from had.paths import CONFIG_NAME

_KEY = re.compile(r"(?P<indent> *)(?P<key>[\w.-]+):(?:.*?\s#\s+(?P<comment>.*))?")


def options(loader: ConfigLoader, group: str) -> list[str]:
    """The names of a group's options, nested ones as "glue/sst2", flat ones first."""
    return list(_names(loader, group))


def _names(loader: ConfigLoader, group: str, prefix: str = "") -> Iterator[str]:
    for name in sorted(loader.get_group_options(group, ObjectType.CONFIG)):
        if not name.startswith("_"):  # bases of other options, not options
            yield prefix + name
    for name in sorted(loader.get_group_options(group, ObjectType.GROUP)):
        yield from _names(loader, f"{group}/{name}", f"{prefix}{name}/")


def listing(group: str) -> str:
    """The options of a group as lines of help; the resolver `had.options` of conf/hydra.

    Only works where Hydra is initialised, as it is whenever help is printed.
    """
    loader = GlobalHydra.instance().config_loader()
    names = options(loader, group)
    width = max((len(name) for name in names), default=0)
    lines = [f"  {name:<{width}}  {describe(loader, f'{group}/{name}')}" for name in names]
    # Hydra substitutes $NAMES in its help template, so a dollar sign of ours is doubled.
    return "\n".join(line.rstrip() for line in lines).replace("$", "$$")


def keys() -> str:
    """The keys of the primary file as lines of help; the resolver `had.keys` of conf/hydra."""
    loader = GlobalHydra.instance().config_loader()
    described = comments(written(loader, CONFIG_NAME))
    width = max(map(len, described))
    return "\n".join(f"  {key:<{width}}  {line}" for key, line in described.items())


def describe(loader: ConfigLoader, option: str) -> str:
    """The first sentence of the comment that opens an option's file, or nothing."""
    lines = written(loader, option).splitlines()
    comment = takewhile(lambda line: line.startswith("#"), lines)
    words = [line.lstrip("# ") for line in comment if not line.startswith("# @package")]
    return re.split(r"(?<=[.?!])\s", " ".join(words))[0].rstrip(".")


def comments(text: str) -> dict[str, str]:
    """What a YAML file says of its keys: dotted key to the comment at the end of its line.

    Items of lists have no names and are passed over.
    """
    found, above = {}, []
    for line in text.splitlines():
        if not (match := _KEY.match(line)):
            continue
        indent, key, comment = len(match["indent"]), match["key"], match["comment"]
        above = [(depth, name) for depth, name in above if depth < indent] + [(indent, key)]
        if comment:
            found[".".join(name for _, name in above)] = comment
    return found


def written(loader: ConfigLoader, option: str) -> str:
    """A config file as it is written, comments and all, or nothing if there is none."""
    texts = (_text(source, option) for source in loader.get_sources())
    return next((text for text in texts if text), "")


def _text(source: ConfigSource, option: str) -> str:
    """A config file as it is written; Hydra itself only gives it parsed."""
    roots = {"file": Path, "pkg": _package}
    if source.scheme() not in roots:
        return ""
    file = roots[source.scheme()](source.path).joinpath(f"{option}.yaml")
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _package(path: str) -> resources.abc.Traversable:
    return resources.files(path.replace("/", "."))
