"""`had --completion SHELL`: what the Tab key offers after `had`.

The script it prints asks `had --completion query LINE` at every Tab. Offered are commands, the
flags that a command's own --help lists, and for commands that take overrides the options of every
config group, nested ones too, and every key, as Hydra completes them.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from typing import Protocol

from hydra.core.config_loader import ConfigLoader
from hydra.plugins.completion_plugin import DefaultCompletionPlugin

from had.config.catalogue import options
from had.config.loading import open_hydra
from had.config.wording import one_of
from had.errors import HadError
from had.paths import CONFIG_NAME, hydra_config_path

QUERY = "query"
BASH = r"""_had_complete() {
    local line="${COMP_LINE:0:COMP_POINT}" IFS=$'\n' cut="${COMP_WORDBREAKS//[^=:@]/}" word prefix
    word="${line##* }"
    [[ -n $cut ]] && prefix="${word%"${word##*[$cut]}"}"  # what bash takes for earlier words
    COMPREPLY=($(had --completion query "$line" 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} != *[=./] ]] && COMPREPLY[0]+=" "
}
complete -o nospace -o default -F _had_complete had
"""
ZSH = r"""_had() {
    local -a found
    found=(${(f)"$(had --completion query "$LBUFFER" 2>/dev/null)"})
    if (( $#found )); then compadd -S '' -- $found; else _files; fi
}
compdef _had had
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH}


class Subcommand(Protocol):
    """A command of `had`, as far as its completion goes."""

    @property
    def overrides(self) -> bool:
        """Whether it takes overrides of the configuration."""

    def load(self) -> Callable[[Sequence[str]], int]:
        """The function that runs it."""


@dataclass(frozen=True)
class Flag:
    """One way to write a flag of a command.

    Attributes:
        text: with its dashes.
        takes_value: whether the next word is its value.
    """

    text: str
    takes_value: bool


def main(argv: Sequence[str], commands: Mapping[str, Subcommand]) -> int:
    """`had --completion bash|zsh`; returns the exit status.

    Raises:
        HadError: there is no script for that shell.
    """
    shell = argv[0] if argv else ""
    if shell == QUERY:
        sys.stdout.writelines(f"{word}\n" for word in candidates(" ".join(argv[1:]), commands))
        return 0
    if shell not in SCRIPTS:
        raise HadError(f"had --completion {shell}: must be {one_of(shell, SCRIPTS)}")
    sys.stdout.write(SCRIPTS[shell])
    return 0


def candidates(line: str, commands: Mapping[str, Subcommand]) -> list[str]:
    """What may stand in place of the last word of a command line; nothing where files may.

    Args:
        line: up to the cursor, `had` included.
        commands: by name.
    """
    *before, word = [*line.split(), *([""] if line.endswith(" ") else [])][1:] or [""]
    return sorted(each for each in _offered(before, word, commands) if each.startswith(word))


def _offered(before: list[str], word: str, commands: Mapping[str, Subcommand]) -> list[str]:
    name, *words = before or [""]
    if not before:
        return [*commands, "--help", "--completion"]
    if name not in commands:
        return list(SCRIPTS) if name == "--completion" else []
    listed = flags(commands[name]) if word.startswith("-") or before[-1].startswith("-") else []
    if any(flag.takes_value and flag.text == before[-1] for flag in listed):
        return []
    if word.startswith("-"):
        return [flag.text for flag in listed]
    return _overrides(words, word) if commands[name].overrides else []


def flags(command: Subcommand) -> list[Flag]:
    """The flags that a command's help lists, in its order."""
    text = io.StringIO()
    with redirect_stdout(text), suppress(SystemExit):
        command.load()(["--help"])
    lines = (line.strip() for line in text.getvalue().splitlines())
    heads = [re.split(r" : |  ", line)[0] for line in lines if line.startswith("-")]
    found = {
        name: Flag(name, takes_value=bool(re.search(r" [^-]", head)))
        for head in heads
        for name in re.findall(r"(?:^|[ ,])(--?\w[\w-]*)", head)
    }
    return list(found.values())


def _overrides(words: list[str], word: str) -> list[str]:
    """Overrides of the configuration that may follow others."""
    given = [each for each in words if "=" in each]
    with open_hydra(hydra_config_path()) as hydra:
        found = _options(hydra.config_loader, word)
        if found:
            return found
        line = " ".join([*given, word]) if word else "".join(f"{each} " for each in given)
        return DefaultCompletionPlugin(hydra.config_loader)._query(CONFIG_NAME, line)


def _options(loader: ConfigLoader, word: str) -> list[str]:
    """`group=OPTION` for every option of a group, or one more option of a list of them."""
    key, equals, value = word.partition("=")
    if not equals:
        return []
    done = value[: value.rfind(",") + 1]
    return [f"{key}={done}{name}" for name in options(loader, key.partition("@")[0])]
