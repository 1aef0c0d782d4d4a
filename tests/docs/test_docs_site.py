"""The pages: generated parts are current, commands work, quoted messages exist, the site builds."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra._internal.utils import get_args_parser

from had.cli import COMMANDS
from had.config import reference
from had.config.preflight import preflight
from had.paths import CONFIG_NAME

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
BLOCK = re.compile(r"<!-- (?:had results: begin ([\w-]+)|([\w ]+): begin) -->")
COMMAND = re.compile(r"^ {4}((?:python train\.py|had [a-z]+|python -m had\.)[^#\n]*)", re.MULTILINE)
STAND_INS = {"no such directory", "no such file"}  # of places that only the reader has


def commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        unbroken = page.read_text(encoding="utf-8").replace("\\\n", "")
        for match in COMMAND.finditer(unbroken):
            if "..." not in match[1]:
                yield page.name, match[1].strip()


def test_the_reference_is_current() -> None:
    page = reference.PAGE.read_text(encoding="utf-8")
    assert reference.render(page) == page, "run python -m had.config.reference"


def test_the_reference_explains_every_key_of_ours() -> None:
    rows = re.findall(
        r"^\| `([\w.]+)` \| ([^|]*(?:\\\|[^|]*)*) \| .* \| (.*) \|$",
        reference.PAGE.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    typed = {key: meaning.strip() for key, kind, meaning in rows if kind.strip()}
    assert {"task.topn", "model.geometry", "schedule.stages.0.mixing", "sparsity.n"} <= set(typed)
    assert [key for key, meaning in typed.items() if not meaning] == []


@pytest.mark.parametrize(("page", "command"), list(dict.fromkeys(commands())))
def test_a_command_of_the_pages_is_accepted(
    page: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of training and cost compose and pass all checks; of others, the command exists."""
    monkeypatch.syspath_prepend(str(DOCS / "examples"))
    monkeypatch.chdir(ROOT)
    program, *words = shlex.split(command)
    name, *arguments = ("train", *words[1:]) if program == "python" else words
    if words[0] == "-m":
        assert importlib.util.find_spec(words[1])
        return
    assert name in COMMANDS
    if name == "train" and not {"--cfg", "--help", "--shell-completion"} & set(arguments):
        args = get_args_parser().parse_args(arguments)
        problems = preflight(args, str(ROOT / "conf"), CONFIG_NAME)
        assert [p for p in problems if not any(each in p for each in STAND_INS)] == []


def test_records_that_the_pages_show_are_there_or_made_there() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for place in re.findall(r"^ {4}had results (results/\w+)", text, re.MULTILINE):
            made = f"--records {place}" in text
            assert made or (ROOT / place).is_dir(), f"{page.name}: no command makes {place}"


def test_every_written_table_says_how_it_is_made() -> None:
    text = (DOCS / "reproducing.md").read_text(encoding="utf-8")
    pages = [page.read_text(encoding="utf-8") for page in PAGES]
    blocks = {name or other for page in pages for name, other in BLOCK.findall(page)}
    assert {"headline", "recipes", "topn", "cpu attention"} <= blocks
    assert [name for name in blocks if f"`{name}`" not in text] == []
    captions = re.findall(r"Made by `(had results [^`]+)`", pages[0])
    assert captions
    for command in captions:
        assert command in text


def test_messages_that_are_explained_exist() -> None:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    said = {
        node.value
        for file in (ROOT / "had").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert len(quoted) > 10
    assert [text for text in quoted if not any(text in message for message in said)] == []


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """And asks nothing of the network."""
    for module in ("mkdocs", "material", "latex2mathml"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install -e '.[docs]'")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        assert page.stem == "index" or f'href="{page.stem}/"' in index, "not in the navigation"
    concepts = (tmp_path / "concepts" / "index.html").read_text(encoding="utf-8")
    assert concepts.count("<math") >= 8
    assert r"\sigma" not in re.sub(r'title="[^"]*"', "", concepts)
    extending = (tmp_path / "extending" / "index.html").read_text(encoding="utf-8")
    for page, included in ((index, "had.binarize("), (extending, "class BarsTask(")):
        assert included in re.sub(r"<[^>]+>", "", page)
    loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', concepts)
    assert loaded == []
