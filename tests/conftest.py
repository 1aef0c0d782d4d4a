"""What all tests share: no network, little parallelism, and the real data where it can be found."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig

from had.config.loading import Loader
from had.lean_imports import lean_imports

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: a second thread only waits

CONF = Path(__file__).resolve().parents[1] / "conf"
SHARED = Path(__file__).resolve().parents[2] / "shared"
UNPACK = SHARED / "tools" / "unpack-data"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Test files import everything there is: see `lean_imports`."""
    with lean_imports():
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that all workers end at about the same time."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session", autouse=True)
def _own_files_are_composed_once() -> Iterator[None]:
    """No test changes a file of `conf/`; whoever gets a configuration makes a copy of it."""
    known: dict[tuple[object, ...], DictConfig] = {}
    compose = Loader._of_files

    def remembered(self: Loader, *what: object) -> DictConfig:
        places = [element.path for element in self.config_search_path.get_path()]
        if any(place.startswith("file:") and place != f"file://{CONF}" for place in places):
            return compose(self, *what)
        key = (*places, *what)
        if key not in known:
            known[key] = compose(self, *what)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loader, "_of_files", remembered)
        yield


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with official GLUE files, MiniLM and stories260K, else a skip.

    HAD_TEST_DATA names one that is ready; otherwise the archives beside the checkout are unpacked.
    """
    if ready := os.environ.get("HAD_TEST_DATA"):
        return Path(ready)
    if not UNPACK.is_file():
        pytest.skip("no real data: HAD_TEST_DATA is not set and there are no archives to unpack")
    folder = tmp_path_factory.mktemp("data")
    subprocess.run(["bash", UNPACK, folder, "glue", "minilm", "stories260k"], check=True)
    return folder
