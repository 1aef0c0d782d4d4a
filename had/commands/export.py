"""`had export`: a student as a directory, or a repository of the Hub, that needs no HAD to run."""

from __future__ import annotations

import argparse
import logging
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from had.errors import HadError
from had.hardware import load_accelerator
from had.models.export import Export, check_target, export
from had.models.publish import PREFIX, Repository
from had.models.storage import STUDENT
from had.paths import looks_like_path
from had.results.card import card
from had.results.card_facts import UNKNOWN, Facts
from had.results.records import OVERRIDES, RECORD, identity_of, read_records
from had.runner import CONFIG

log = logging.getLogger(__name__)

CARD = "README.md"
_PATH = re.compile(r"(?<=[=,\[])[~/][^,\]]*/([^,/\]]+)")


def main(argv: Sequence[str]) -> int:
    """`had export RUN --to DIR|hub:ORG/NAME`; returns the exit status.

    Raises:
        HadError: there is no student, or the place cannot be written to.
    """
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.to.startswith(PREFIX):
        _to_hub(arguments)
    else:
        _to_directory(arguments)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="had export", description=__doc__)
    add = parser.add_argument
    add("run", type=Path, help="a run directory, or the directory of a student")
    place = "a directory, or hub:ORG/NAME, which uploads: nothing else ever does"
    add("--to", required=True, metavar="PLACE", help=place)
    shown = "records and folders of them, for the model card (default: the run's own)"
    add("--records", nargs="+", type=Path, default=[], metavar="RECORD", help=shown)
    licence = "of the weights, as the Hub names it (default: that of the base model, if it is said)"
    add("--license", metavar="NAME", help=licence)
    add("--private", action="store_true", help="a repository made here is private")
    add("--force", action="store_true", help="the place may hold files; same names are replaced")
    return parser


def _to_directory(arguments: argparse.Namespace) -> None:
    if arguments.private:
        log.warning("--private is ignored: it is for %sORG/NAME", PREFIX)
    directory = Path(arguments.to).expanduser()
    made = _written(arguments, directory, directory.resolve().name)
    log.info("%s, needs %s", made.target.base, ", ".join(made.target.packages))
    log.info("exported to: %s", directory)


def _to_hub(arguments: argparse.Namespace) -> None:
    repository = Repository(arguments.to.removeprefix(PREFIX), arguments.private)
    repository.check(force=arguments.force)
    with tempfile.TemporaryDirectory(prefix="had-export-") as scratch:
        directory = Path(scratch) / "student"
        _written(arguments, directory, repository.name)
        address = repository.upload(directory)
    log.info("uploaded to: %s", address)


def _written(arguments: argparse.Namespace, directory: Path, name: str) -> Export:
    """Export into the directory, the card included."""
    student = arguments.run / STUDENT if (arguments.run / STUDENT).is_dir() else arguments.run
    check_target(student, directory, force=arguments.force)
    history = _history(arguments)  # bad records are found before anything is written
    made = export(student, directory, force=arguments.force)
    facts = Facts(
        name=name,
        base=made.target.base,
        auto=made.target.auto,
        pipeline=made.target.pipeline,
        packages=made.target.packages,
        settings=made.settings,
        layers=made.layers,
        parameters=made.parameters,
        files=[file.name for file in directory.iterdir()],
        **history,
    )
    (directory / CARD).write_text(card(facts))
    return made


def _history(arguments: argparse.Namespace) -> dict[str, Any]:
    """What records and the run's configuration say: the other half of the card's facts."""
    run = arguments.run.parent if arguments.run.resolve().name == STUDENT else arguments.run
    own = _public(read_records([run])[0]) if (run / RECORD).is_file() else None
    records = [_public(record) for record in read_records(arguments.records)]
    if own and identity_of(own) not in map(identity_of, records):
        records.append(own)
    config = yaml.safe_load((run / CONFIG).read_text()) if (run / CONFIG).is_file() else {}
    return {
        "own": own,
        "records": records,
        "config": _without_places(config),
        "licence": arguments.license or _licence(config),
        "accelerators": _titles([*records, *([own] if own else [])]),
    }


def _public(record: dict[str, Any]) -> dict[str, Any]:
    """The record with the last part of paths alone: where things lie here is nobody's business."""
    settings = [_PATH.sub(r"\1", each) for each in record.get(OVERRIDES, ())]
    return {**record, OVERRIDES: settings}


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    """The run's configuration with the names of directories in place of their paths."""
    parts = {part: dict(config.get(part) or {}) for part in ("model", "task")}
    top = {"teacher": config.get("teacher")}
    for values, key in ((parts["model"], "name"), (parts["task"], "hub"), (top, "teacher")):
        if values.get(key) and looks_like_path(str(values[key])):
            values[key] = Path(str(values[key])).name
    return {**config, **parts, **top} if config else {}


def _licence(config: dict[str, Any]) -> str:
    """What the base model's own card says, where its directory has one."""
    place = config.get("teacher") or (config.get("model") or {}).get("name") or ""
    file = Path(str(place)).expanduser() / CARD
    if not file.is_file():
        return UNKNOWN
    _, found, rest = file.read_text().partition("---\n")
    try:
        front = yaml.safe_load(rest.partition("\n---")[0]) if found else None
    except yaml.YAMLError:
        return UNKNOWN
    return str(front.get("license", UNKNOWN)) if isinstance(front, dict) else UNKNOWN


def _titles(records: Sequence[dict[str, Any]]) -> dict[str, str]:
    """What the accelerators are that the records name; specs of the user's own may be gone."""
    names = {key.split("/")[1] for each in records for key in each if key.startswith("hw/")}
    titles = {}
    for name in sorted(names):
        try:
            titles[name] = load_accelerator(name).title
        except HadError:
            log.warning("%s: no accelerator of that name; the card does not say what it is", name)
    return titles
