"""`had cost`: prices from configuration alone, refuses in sentences, draws, speaks JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from had import cli
from had.hardware import ModelGeometry, evaluate
from had.hardware.docs_parts import COMMANDS

ROOT = Path(__file__).parents[2]
SST2 = ("model=bert", "task=glue/sst2")
FOUR = "standard,had_digital,had_cam,camformer"

Priced = Callable[..., dict[str, Any]]
Refused = Callable[..., list[str]]


@pytest.fixture
def priced(capsys: pytest.CaptureFixture[str]) -> Priced:
    """The JSON that a command line answers."""

    def answer(*arguments: str) -> dict[str, Any]:
        assert cli.main(["cost", *arguments, "--json"]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return json.loads(captured.out)

    return answer


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a command line prints."""

    def answer(*arguments: str) -> str:
        assert cli.main(["cost", *arguments]) == 0
        return capsys.readouterr().out

    return answer


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """The numbered problems that a command line is refused with."""

    def lines(*arguments: str) -> list[str]:
        assert cli.main(["cost", *arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        first, *rest = captured.err.splitlines()
        assert first.endswith("in the configuration; nothing was started:")
        return [line.partition(". ")[2] for line in rest]

    return lines


def test_a_model_on_a_task_is_priced_as_the_model_says(priced: Priced) -> None:
    answer = priced(*SST2, "hardware=camformer")
    workload = ModelGeometry(layers=12, heads=12, head_dim=64).workload(128, 30)
    (report,) = answer["reports"]
    assert report["quantities"] == evaluate(workload, "camformer").quantities()
    expected = evaluate(workload, "camformer").ratios(evaluate(workload, "standard"))
    assert report["ratios"] == expected
    assert (answer["context"], answer["n"], answer["baseline"]) == (128, 30, "standard")


def test_overrides_reach_the_price(priced: Priced) -> None:
    answer = priced(*SST2, "task.max_length=384", "sparsity.n=0.25", "hardware=had_digital")
    workload = ModelGeometry(layers=12, heads=12, head_dim=64).workload(384, 96)
    assert answer["reports"][0]["quantities"] == evaluate(workload, "had_digital").quantities()


def test_flags_replace_context_and_rows(priced: Priced) -> None:
    answer = priced(*SST2, "--context", "4096", "--query-length", "1", "--compare", "standard")
    workload = ModelGeometry(12, 12, 64).workload(4096, 30, query_length=1)
    assert answer["reports"][0]["quantities"] == evaluate(workload, "standard").quantities()


def test_the_default_prices_the_images_of_the_default_task(priced: Priced) -> None:
    answer = priced()
    assert (answer["model"], answer["task"], answer["context"]) == ("vit_digits", "digits", 17)
    assert [one["accelerator"] for one in answer["reports"]] == FOUR.split(",")


def test_arguments_of_the_model_change_its_geometry(priced: Priced) -> None:
    answer = priced(*(f"model.arguments.{change}" for change in ("patch_size=4", "num_heads=2")))
    geometry = answer["geometry"]
    assert (geometry["heads"], geometry["head_dim"], geometry["tokens"]) == (2, 32, 5)


def test_a_single_accelerator_is_broken_down(printed: Callable[..., str]) -> None:
    text = printed(*SST2, "hardware=camformer")
    assert "top2 passes at most 16 of 128 keys, fewer than n" in text
    for word in ("key_sram", "value_macs", "258,414", "area ratio to standard"):
        assert word in text


def test_several_are_compared_and_published_ones_marked(printed: Callable[..., str]) -> None:
    text = printed(*SST2, "--compare", "had_digital,a3")
    assert "a3 *" in text
    assert "* published figures, not modelled here" in text
    assert "a3: published figures, not modelled: effective GOPS" in text
    assert "had_digital *" not in text
    assert "energy ratio" in text  # to a baseline that was not asked for
    assert "key_sram" not in text


def test_a_published_row_alone_is_marked_and_has_no_area(printed: Callable[..., str]) -> None:
    text = printed(*SST2, "--compare", "a3")
    assert "a3 *" in text
    assert "* published figures, not modelled here" in text
    assert "area" not in text
    (total,) = [line for line in text.splitlines() if "total" in line]
    assert total.split("│")[-3].strip() == "-"


def test_sweeps_go_through_context_and_kept_keys(priced: Priced) -> None:
    answer = priced(*SST2, "--sweep", "n=128..512", "--sweep", "topn=8,16", "--compare", FOUR)
    context, kept = answer["sweeps"]
    assert [point["value"] for point in context["points"]] == [128, 256, 512]
    assert (kept["parameter"], len(kept["points"])) == ("topn", 2)
    workload = ModelGeometry(12, 12, 64).workload(128, 16)
    point = kept["points"][1]["quantities"]
    assert list(point) == FOUR.split(",")
    assert point["had_digital"] == evaluate(workload, "had_digital").quantities()


def test_sweeps_are_printed_with_the_notes_of_their_end(printed: Callable[..., str]) -> None:
    text = printed(*SST2, "--compare", "camformer,a3", "--sweep", "n=128..65536")
    assert "at n = 65536, camformer: key_sram holds 64 times the shipped 8 KiB" in text
    words = " ".join(text.split())  # captions are as narrow as their tables
    assert words.count("* published figures, not modelled here") == 3


def test_plots_are_written_twice_each(priced: Priced, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "run").mkdir()
    record = {"score/drop": 1.0, "hw/camformer/energy_per_query_nj": 160.0}
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(record))
    (tmp_path / "more.json").write_text(json.dumps([record | {"score/drop": 2.0}]))
    places = (str(tmp_path / "run"), str(tmp_path / "more.json"))
    # --json follows --records, so that the flag ends the list of places
    answer = priced(
        *SST2, "hardware=camformer", "--plots", str(tmp_path / "plots"), "--records", *places
    )
    names = {Path(file).name for file in answer["plots"]}
    stems = ("breakdown", "sweep_n", "pareto_camformer")
    assert names == {f"{stem}.{ending}" for stem in stems for ending in ("png", "svg")}
    for file in map(Path, answer["plots"]):
        assert file.read_bytes().startswith(b"\x89PNG" if file.suffix == ".png" else b"<?xml")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("model=brt",), "model=brt: no such model; did you mean bert?"),
        (("task.max_lenght=3", *SST2), "task has no max_lenght; did you mean max_length?"),
        ((*SST2, "sparsity.n=0"), "sparsity.n=0: must be an integer of 1 or more"),
        ((*SST2, "--compare", "camfomer"), "hardware.accelerators=camfomer: unknown accelerator"),
        ((*SST2, "hardware=none"), "hardware.accelerators is empty"),
        ((*SST2, "--sweep", "m=1..2"), "unknown sweep 'm=1..2'"),
        (("model=bert",), "task.modality=image does not fit model.modality=text"),
        ((*SST2, "task.max_length=long"), "task.max_length='long' must be an integer"),
        ((*SST2, "model.geometry.heads=0"), "model.geometry: heads=0 must be an integer of 1"),
        ((*SST2, "+model.geometry.head=2"), "model.geometry: no such key head, known: layers"),
        ((*SST2, "--records", "nowhere"), "--records nowhere: no run directory or JSON file"),
    ],
)
def test_bad_input_gets_one_sentence(
    refused: Refused, arguments: tuple[str, ...], sentence: str
) -> None:
    problems = refused(*arguments, *(("--plots", "unused") if "--records" in arguments else ()))
    assert [sentence in line for line in problems] == [True]


def test_everything_is_refused_at_once(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    problems = refused(
        *("modle=bert", "task=glue/sst3", "sparsity.n=0", "--sweep", "m=1", "--compare", "nothing"),
        *("--records", str(tmp_path / "x.json")),
    )
    starts = ["unknown sweep 'm=1'", "--records ", "--records are only drawn", "task=glue/sst3"]
    starts += ["modle=bert", "sparsity.n=0", "hardware.accelerators=nothing"]
    assert [line[: len(start)] for line, start in zip(problems, starts, strict=True)] == starts


@pytest.mark.parametrize("text", ["0", "-1", "many"])
def test_a_context_is_a_count(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["cost", f"--context={text}"])
    assert stop.value.code == 2
    assert "is not an integer of 1 or more" in capsys.readouterr().err


def test_a_hub_id_without_geometry_gets_the_two_ways_out(refused: Refused) -> None:
    hub = ("model=transformers", "task=glue/sst2")
    (line,) = refused(*hub, "model.name=some/model")
    assert line == (
        "model.geometry is unknown and model.name=some/model is no directory: give "
        "model.name=<directory with config.json>, or "
        "+model.geometry={layers: 12, heads: 12, head_dim: 64}"
    )
    (line,) = refused(*hub)
    assert line.startswith("model.geometry is unknown and model.name has no value: give")


@pytest.mark.parametrize("sign", ["+", ""])
def test_the_way_out_by_geometry_leads_out(priced: Priced, sign: str) -> None:
    stated = f"{sign}model.geometry={{layers: 2, heads: 8, head_dim: 32, kv_heads: 2}}"
    answer = priced("model=transformers", "model.name=some/model", "task=glue/sst2", stated)
    assert (answer["geometry"]["layers"], answer["geometry"]["kv_heads"]) == (2, 2)


def test_a_directory_beats_the_yaml_and_an_override_both(priced: Priced, tmp_path: Path) -> None:
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    place = (*SST2, f"model.name={tmp_path}")
    assert priced(*place)["geometry"]["layers"] == 2
    assert priced(*SST2, "+model.arguments.num_hidden_layers=3")["geometry"]["layers"] == 3
    assert priced(*place, "+model.arguments.num_hidden_layers=3")["geometry"]["layers"] == 3
    assert priced(*place, "model.geometry.layers=5")["geometry"]["layers"] == 5


@pytest.mark.parametrize("command", COMMANDS.values())
def test_the_commands_of_the_page_work(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, priced: Priced
) -> None:
    record = {"score/drop": 1.0, "hw/camformer/energy_per_query_nj": 160.0}
    (tmp_path / "outputs" / "run").mkdir(parents=True)
    (tmp_path / "outputs" / "run" / "metrics.json").write_text(json.dumps(record))
    monkeypatch.chdir(tmp_path)
    program, name, *arguments = command.split()
    assert (program, name) == ("had", "cost")
    assert all(report["quantities"] for report in priced(*arguments)["reports"])


def test_help_says_how_and_names_the_accelerators(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["cost", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for word in ("--sweep", "--records", "model=bert task=glue/sst2", "camformer", "h200_packed"):
        assert word in text


def test_no_framework_is_imported_and_nothing_is_written(tmp_path: Path) -> None:
    heavy = {"torch", "transformers", "timm", "pytorch_lightning", "wandb", "sklearn", "matplotlib"}
    code = (
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom had.cli import main\n"
        f"assert main(['cost', *{SST2!r}, '--sweep', 'n=128..512', '--json']) == 0\n"
        f"assert not {heavy!r} & set(sys.modules), {heavy!r} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "bert"
    assert list(tmp_path.iterdir()) == []
