"""What Tab offers: every command, every flag of its help, every option and key."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from had import cli
from had.commands.completion import SCRIPTS, candidates, flags

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
GROUPS = sorted(
    path.name for path in CONF.iterdir() if path.is_dir() and not path.name.startswith("_")
)


def offered(line: str) -> list[str]:
    return candidates(line, cli.COMMANDS)


def option_names(group: str) -> set[str]:
    files = [path.relative_to(CONF / group) for path in (CONF / group).rglob("*.yaml")]
    return {f.with_suffix("").as_posix() for f in files if not f.name.startswith("_")}


def test_every_command_is_offered() -> None:
    assert set(offered("had ")) == {*cli.COMMANDS, "--help", "--completion"}
    assert offered("had tra") == ["train"]
    assert offered("had nothing ") == []
    assert offered("had --completion ") == sorted(SCRIPTS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_flag_that_help_names_is_offered(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with suppress(SystemExit):
        cli.main([name, "--help"])
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", capsys.readouterr().out))
    assert "--help" in named
    assert named <= {flag.text for flag in flags(cli.COMMANDS[name])}


@pytest.mark.parametrize("group", [group for group in GROUPS if group != "hydra"])
def test_every_option_is_offered(group: str) -> None:
    assert set(offered(f"had train {group}=")) == {
        f"{group}={name}" for name in option_names(group)
    }


def test_help_of_training_lists_every_group_option_and_key(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.train(["--help"], str(CONF)) == 0
    text = capsys.readouterr().out
    for group in GROUPS:
        section = re.split(r"\n(?! )", text.partition(f"\n{group}=\n")[2])[0]
        listed = set(re.findall(r"^  (\S+)", section, re.MULTILINE))
        assert listed == option_names(group) or group == "hydra", group
    for key in ("backend", "cuda_graphs", "seed", "teacher", "resume", "run_dir"):
        assert re.search(rf"^  {key} +\S", text, re.MULTILINE), key


def test_lists_keys_and_other_packages_are_offered() -> None:
    assert offered("had sweep experiment=glue/topn,glue/recip") == [
        "experiment=glue/topn,glue/recipes",
        "experiment=glue/topn,glue/recipes_sst2",
    ]
    assert offered("had train schedule@finetune=fi") == ["schedule@finetune=finetune"]
    assert offered("had cost sparsity.") == ["sparsity.minimum=", "sparsity.n="]
    assert "task.max_length=" in offered("had train task=glue/sst2 task.max")
    assert offered("had train task=digits task.max") == []


def test_files_are_left_to_the_shell() -> None:
    assert offered("had eval ") == offered("had sweep --records ") == []
    assert "task=digits" in offered("had sweep --dry-run task=")


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--completion", "fihs"]) == 2
    assert "had --completion fihs: must be one of bash, zsh" in capsys.readouterr().err


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A folder for PATH with `had` and `python`, as an activated environment has."""
    for name, call in {"had": "-m had.cli", "python": ""}.items():
        (tmp_path / name).write_text(f'#!/bin/sh\nexec {sys.executable} {call} "$@"\n')
        (tmp_path / name).chmod(0o755)
    return tmp_path


def shell(program: str, script: str, commands: Path) -> list[str]:
    found = shutil.which(program)
    if not found:
        pytest.skip(f"{program} is not installed")
    flag = "--norc" if program == "bash" else "-f"
    done = subprocess.run(
        [found, flag, "-c", script],
        cwd=ROOT,
        env={"PATH": f"{commands}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(commands)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


BASH_TAB = """
COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
eval "$({install})"
COMP_LINE='{line}' COMP_POINT=${{#COMP_LINE}}
COMP_POINT={length} COMP_WORDS=($COMP_LINE) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
{function}
printf '%s|\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("line", "replies"),
    [
        ("had tra", ["train "]),
        ("had train task=glue/ss", ["glue/sst2 "]),
        ("had train schedule@finetune=fi", ["finetune "]),
        ("had cost sparsity.", ["sparsity.minimum=", "sparsity.n="]),
    ],
)
def test_bash_completes_had(commands: Path, line: str, replies: list[str]) -> None:
    """Bash takes what stands before a "=" for a word of its own."""
    tab = BASH_TAB.format(
        install="had --completion bash", line=line, length=len(line), function="_had_complete"
    )
    assert shell("bash", tab, commands) == [f"{reply}|" for reply in replies]


def test_bash_completes_train_py(commands: Path) -> None:
    """By Hydra's own completion, which sees no nested options."""
    line = "python train.py model=ber"
    tab = BASH_TAB.format(
        install="python train.py --shell-completion install=bash",
        line=line,
        length=len(line),
        function="hydra_bash_completion",
    )
    assert shell("bash", tab, commands)[-2:] == ["model=bert|", "model=bert_large|"]


def test_zsh_completes_had(commands: Path) -> None:
    script = """
    compdef() { }
    compadd() { print -l -- "${@:4}" }
    eval "$(had --completion zsh)"
    LBUFFER='had train task=glue/s' _had
    """
    assert shell("zsh", script, commands) == ["task=glue/sst2", "task=glue/stsb"]
