"""`had export`, as a user calls it: to a directory, and to a Hub that is not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import yaml

import had
from had.models.export import export
from tests.integration.command_line import Ended, called
from tests.models.zoo import ZOO, build
from tests.results.material import record

Call = Callable[..., Ended]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    return lambda *words: called(capsys.readouterr, *map(str, words))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with all that export asks for, from a base model with a licence."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    run = tmp_path / "run"
    model = had.binarize(build("bert"), 4, "had", calibration=[ZOO["bert"].inputs()])
    had.save(model, run / "student")
    other = {"teacher/accuracy": 0.7, "student/accuracy": 0.6, "overrides": ["task.path=/me/x.csv"]}
    own = record("files", 3, 70.0, 60.0, n=4, **other)
    (run / "record.json").write_text(json.dumps(own))
    config = {"task": {"name": "files"}, "model": {"name": str(base)}, "teacher": None}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A Hub that remembers what it was asked; it holds `files` if it is asked for a repository."""
    hub = SimpleNamespace(calls=[], files=None, private=True)

    def create_repo(name: str, **options: Any) -> str:
        hub.calls.append(("create_repo", name, options))
        return f"https://hub/{name}"

    def upload_folder(**options: Any) -> None:
        files = sorted(each.name for each in Path(options["folder_path"]).iterdir())
        hub.calls.append(("upload_folder", options["repo_id"], files))

    api = SimpleNamespace(
        whoami=lambda: {},
        repo_exists=lambda name: hub.files is not None,
        list_repo_files=lambda name: hub.files,
        repo_info=lambda name: SimpleNamespace(private=hub.private),
        create_repo=create_repo,
        upload_folder=upload_folder,
    )
    hub.api = api
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return hub


def test_a_run_becomes_a_directory_with_its_card(run: Path, tmp_path: Path, call: Call) -> None:
    ended = call("export", run, "--to", tmp_path / "mine")
    assert ended.status == 0
    assert {each.name for each in (tmp_path / "mine").iterdir()} == {
        *("README.md", "config.json", "model.safetensors", "modeling_had.py")
    }
    text = (tmp_path / "mine" / "README.md").read_text()
    data = huggingface_hub.ModelCard(text).data
    assert (data.license, data.model_name) == ("mit", "mine")
    assert data.eval_results[0].metric_value == 0.6
    assert "`task.path=x.csv`" in text
    assert str(tmp_path) not in text


def test_a_directory_is_not_taken_for_a_repository(
    run: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    config = {"task": {"hub": "models/mine"}, "model": {"name": "models/mine"}, "teacher": None}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert call("export", run, "--to", "exported").status == 0
    text = (tmp_path / "exported" / "README.md").read_text()
    assert huggingface_hub.ModelCard(text).data.get("base_model") is None
    assert "models/mine" not in text


def test_other_seeds_join_the_run_s_own(run: Path, tmp_path: Path, call: Call) -> None:
    own = json.loads((run / "record.json").read_text())
    others = tmp_path / "records"
    others.mkdir()
    (others / "a.json").write_text(json.dumps({**own, "seed": 4}))
    (others / "b.json").write_text(json.dumps(own))
    student = run / "student"  # its directory will do
    ended = call("export", student, "--to", tmp_path / "mine", "--records", others)
    assert ended.status == 0
    assert "| 4 | 2 | 70.00 ± 0.00 |" in (tmp_path / "mine" / "README.md").read_text()


def test_bad_input_is_refused_before_anything_is_written(
    run: Path, tmp_path: Path, call: Call
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "README.md").write_text("mine")
    for arguments, reason in (
        ((run, "--to", full), "not empty"),
        ((tmp_path, "--to", tmp_path / "new"), "no config.json"),
        ((run, "--to", tmp_path / "new", "--records", tmp_path / "no"), "no such record"),
    ):
        ended = call("export", *arguments)
        assert ended.status == 2
        assert reason in ended.err[-1]
    assert (full / "README.md").read_text() == "mine"
    assert not (tmp_path / "new").exists()
    assert call("export", run, "--to", full, "--force").status == 0


def test_an_upload_makes_the_repository_and_sends_the_files(
    run: Path, call: Call, hub: SimpleNamespace
) -> None:
    assert (
        call("export", run, "--to", "hub:me/student", "--private", "--license", "mit").status == 0
    )
    (created, uploaded) = hub.calls
    assert created == ("create_repo", "me/student", {"private": True, "exist_ok": True})
    assert uploaded[1:] == (
        "me/student",
        ["README.md", "config.json", "model.safetensors", "modeling_had.py"],
    )


def test_the_hub_is_not_written_to_where_something_is_wrong(
    run: Path, call: Call, hub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: str) -> str:
        ended = call("export", run, *arguments)
        assert (ended.status, hub.calls) == (2, [])
        return ended.err[-1]

    assert "hub:ORGANISATION/NAME" in refused("--to", "hub:student")
    assert "hub:a//b" in refused("--to", "hub:a//b")
    hub.files = [".gitattributes", "model.safetensors"]
    assert "holds files; --force" in refused("--to", "hub:me/student")
    hub.private = False
    assert "is public already" in refused("--to", "hub:me/student", "--private", "--force")

    def unreachable() -> None:
        raise ConnectionError("no route")

    hub.api.whoami = unreachable
    assert "out of reach: no route" in refused("--to", "hub:me/student")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert "not logged in" in refused("--to", "hub:me/student")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused("--to", "hub:me/student")


def test_an_export_alone_asks_nobody(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never() -> None:
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr(huggingface_hub, "HfApi", never)
    export(run / "student", tmp_path / "mine")
    assert (tmp_path / "mine" / "modeling_had.py").is_file()
