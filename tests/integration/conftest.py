"""Places for whole runs and for trials of bad input, which must leave nothing elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import material
from tests.integration.places import Place
from tests.integration.trials import Trial


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("runs")
    for write in (material.write_sst2, material.write_stsb, material.write_mnli):
        write(root / "data")
    base = material.base_bert(root / "base")
    return Place(root, base, material.classifier(root / "teacher"), root / "data")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound model without a head."""
    return material.base_bert(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound data root with SST-2."""
    return material.write_sst2(tmp_path_factory.mktemp("data"))


@pytest.fixture
def trial(tmp_path: Path, base: Path, data: Path, capfd: pytest.CaptureFixture[str]) -> Trial:
    return Trial(tmp_path, base, data, capfd.readouterr)


@pytest.fixture(autouse=True)
def _nothing_left_in_the_working_directory() -> Iterator[None]:
    before = {path.name for path in Path.cwd().iterdir()}
    yield
    after = {path.name for path in Path.cwd().iterdir()}
    assert not after & {"outputs", "multirun", "wandb", "lightning_logs"} - before
