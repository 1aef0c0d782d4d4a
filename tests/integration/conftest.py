"""A place for the whole runs of a module, which must leave nothing elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import material
from tests.integration.places import Place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("runs")
    for write in (material.write_sst2, material.write_stsb, material.write_mnli):
        write(root / "data")
    base = material.base_bert(root / "base")
    return Place(root, base, material.classifier(root / "teacher"), root / "data")


@pytest.fixture(autouse=True)
def _nothing_left_in_the_working_directory() -> Iterator[None]:
    before = {path.name for path in Path.cwd().iterdir()}
    yield
    after = {path.name for path in Path.cwd().iterdir()}
    assert not after & {"outputs", "multirun", "wandb", "lightning_logs"} - before
