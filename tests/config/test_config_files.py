"""Every file under conf/ composes, describes itself and fits the classes it names."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from had.config.catalogue import describe, listing, options
from had.config.validate import validate

CONF = Path(__file__).parents[2] / "conf"
FILES = sorted(path.relative_to(CONF).with_suffix("") for path in CONF.rglob("*.yaml"))
OPTIONS = [path for path in FILES if len(path.parts) > 1 and not path.name.startswith("_")]
OURS = {"sparsity", "binarization", "schedule", "model", "trainer", "logger", "callbacks"}
OURS |= {"paths", "hydra", "experiment"}


def choice(path: Path) -> str:
    """As on the command line: only the groups of Hydra itself have groups of options in them."""
    parts = path.parts
    depth = 2 if parts[0] == "hydra" and len(parts) > 2 else 1
    return f"{'/'.join(parts[:depth])}={'/'.join(parts[depth:])}"


def test_every_file_is_an_option_a_base_or_the_root() -> None:
    bases = [path for path in FILES if path.name.startswith("_")]
    assert len(OPTIONS) + len(bases) + 1 == len(FILES)
    assert len(OPTIONS) > len({path.parts[0] for path in OPTIONS})
    assert {path.parts[0] for path in OPTIONS} >= OURS


def test_every_folder_ships_with_the_package() -> None:
    folders = {path.parent for path in CONF.rglob("*.yaml")}
    assert all((folder / "__init__.py").is_file() for folder in folders)


@pytest.mark.parametrize("path", OPTIONS, ids=choice)
def test_option_composes_and_resolves(compose, path: Path) -> None:
    cfg = compose(choice(path))
    values = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
    OmegaConf.to_container(values, resolve=True)


@pytest.mark.parametrize("path", OPTIONS, ids=choice)
def test_option_describes_itself_in_a_line(compose, path: Path) -> None:
    """But for accelerators, whose options bear the names of what they hold."""
    line = describe(GlobalHydra.instance().config_loader(), path.as_posix())
    assert line or path.parts[0] == "hardware"
    assert len(line) <= 110


@pytest.mark.parametrize("path", OPTIONS, ids=choice)
def test_option_fits_the_classes_it_names(compose, path: Path) -> None:
    """Apart from what the user must give and tasks that the default model cannot read."""
    accepted = (
        *("has no value and needs one", "does not fit model.modality", "a teacher is full"),
        "has no labels to fine-tune one on",
        "only the jobs of a sweep",
    )
    problems = validate(compose(choice(path)))
    assert [line for line in problems if not any(part in line for part in accepted)] == []


def test_options_are_listed_flat_then_nested(compose) -> None:
    names = options(GlobalHydra.instance().config_loader(), "task")
    assert names.index("digits") < names.index("glue/sst2")
    assert not any("_base" in name for name in names)
    assert "\n  glue/sst2" in listing("task")


def test_listing_escapes_what_the_help_template_would_substitute(compose) -> None:
    assert "$$HAD_DATA" in listing("paths")
