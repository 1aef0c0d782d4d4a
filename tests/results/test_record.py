"""Which code a record names."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from had.results import record

AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@b")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A commit of one file, which stands for the module that looks itself up."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    monkeypatch.delenv("HAD_COMMIT", raising=False)
    git(tmp_path, "init", "--quiet")
    (tmp_path / "record.py").write_text("one")
    git(tmp_path, "add", "record.py")
    git(tmp_path, *AUTHOR, "commit", "--quiet", "--message=one")
    monkeypatch.setattr(record, "__file__", str(tmp_path / "record.py"))
    return tmp_path


def test_a_checkout_names_its_commit_and_whether_it_was_changed(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    assert record.git_commit() == head
    (checkout / "record.py").write_text("two")
    assert record.git_commit() == f"{head}-dirty"


def test_a_checkout_that_the_package_is_only_installed_in_is_not_its_own(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "__file__", str(checkout / "installed.py"))
    assert record.git_commit() is None


def test_a_copy_is_told_its_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAD_COMMIT", "abc")
    assert record.git_commit() == "abc"
    monkeypatch.setenv("HAD_COMMIT", "")
    assert record.git_commit() == git(checkout, "rev-parse", "HEAD")


def test_without_git_there_is_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    assert record.git_commit() is None
