"""Imports without a search for garbage."""

from __future__ import annotations

import gc
import sys

import pytest

from had.lean_imports import lean_imports


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A process that has not imported torch; what is put here when objects are left alone."""
    calls: list[str] = []
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(gc, "freeze", lambda: calls.append("frozen"))
    monkeypatch.setattr("atexit.register", lambda function: calls.append(function.__name__))
    return calls


def test_nothing_is_searched_while_torch_is_imported_and_that_is_left_alone(
    frozen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with lean_imports():
        assert not gc.isenabled()
        monkeypatch.setitem(sys.modules, "torch", sys)
        assert frozen == []
    assert gc.isenabled()
    assert frozen == ["frozen", "unfreeze"]
    with lean_imports():
        pass
    assert frozen == ["frozen", "unfreeze"]  # by now there may be garbage


def test_what_imports_nothing_large_leaves_nothing_alone(frozen: list[str]) -> None:
    with lean_imports():
        pass
    assert frozen == []


def test_an_import_that_fails_ends_it(frozen: list[str]) -> None:
    with pytest.raises(ImportError), lean_imports():
        raise ImportError
    assert gc.isenabled()


def test_who_has_switched_the_search_off_finds_it_off() -> None:
    gc.disable()
    try:
        with lean_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
