"""Specs: what is refused, and that the message says where."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

import had.hardware
from had.errors import HadError
from had.hardware import available, load_accelerator
from had.hardware.accelerator import PipelineAccelerator
from had.hardware.technology import Quantity, scaling
from had.hardware.yaml_file import read_yaml

PACKAGE = Path(had.hardware.__file__).parent
CAMFORMER = (PACKAGE / "specs" / "camformer.yaml").read_text(encoding="utf-8")
CONF = PACKAGE.parents[1] / "conf" / "hardware"


def refuse(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(HadError, match=f"{re.escape(str(path))}:{line}: .*{message}"):
        load_accelerator(path)


def line_of(text: str, fragment: str) -> int:
    return text[: text.index(fragment)].count("\n") + 1


@pytest.mark.parametrize("name", available())
def test_every_shipped_spec_loads_and_is_named_after_its_file(name: str) -> None:
    assert load_accelerator(name).name == name


@pytest.mark.parametrize("name", available())
def test_every_constant_carries_a_source(name: str) -> None:
    accelerator = load_accelerator(name)
    if isinstance(accelerator, PipelineAccelerator):
        units = [part.unit for part in accelerator.components]
        constants = [q for unit in units for q in (unit.area, unit.energy, unit.power) if q]
        assert all(len(one.source) > 20 and one.node_nm > 0 for one in constants)


def test_a_duplicate_key_is_refused(tmp_path: Path) -> None:
    text = CAMFORMER.replace("clock_ghz: 1.0", "clock_ghz: 1.0\nnode_nm: 65")
    line = line_of(text, "node_nm: 65\ntiling")
    refuse(tmp_path, text, line, f"duplicate key 'node_nm', first on line {line - 2}")


def test_a_duplicate_key_inside_a_flow_mapping_is_refused(tmp_path: Path) -> None:
    text = CAMFORMER.replace("tiling: {rows: 16,", "tiling: {rows: 16, rows: 32,")
    refuse(tmp_path, text, line_of(text, "tiling:"), "duplicate key 'rows'")


def test_an_unknown_component_is_refused(tmp_path: Path) -> None:
    text = CAMFORMER.replace("kind: tile_top", "kind: tile_tip")
    refuse(tmp_path, text, line_of(text, "tile_tip"), "unknown component 'tile_tip'; known: adc")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rows: 16,", "rows: -16,", "'rows' must be at least 1"),
        ("capacity_bits: 65536", "capacity_bits: -65536", "'capacity_bits' must be at least 1"),
        ("lanes: 8", "lanes: 0", "'lanes' must be at least 1"),
        ("lanes: 8", "lanes: 7.5", "'lanes' must be a whole number"),
        ("value: 27728.6", "value: -27728.6", "'value' must be at least 0"),
        ("value: 27728.6", "value: .nan", "'value' must be a number"),
        ("value: 27728.6", "value: many", "'value' must be a number, found 'many'"),
        ("clock_ghz: 1.0", "clock_ghz: 0", "'clock_ghz' must be at least"),
        ("node_nm: 45\n", "node_nm: 28\n", "no scaling for node 28 nm; known nodes: 7"),
        ("unit: softmax_table", "unit: softmax_tabel", "unknown unit 'softmax_tabel'"),
        ("overlap: overlapped", "overlap: partly", "unknown overlap 'partly'"),
        ("kind: pipeline", "kind: pipelined", "unknown kind 'pipelined'"),
        ("keep: 2\n    unit:\n      delay: 2", "unit:\n      delay: 2", "missing key 'keep'"),
        ("    first_keys: 512\n", "    first_key: 512\n", "unknown key 'first_key'"),
        ("[[value_sram, value_macs]]", "[[value_sram, macs]]", "names no component 'macs'"),
        ("stage: normalisation", "stage: normalization", "unknown stage 'normalization'"),
    ],
)
def test_mistakes_are_refused_with_file_and_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "mine.yaml"
    assert old in CAMFORMER
    path.write_text(CAMFORMER.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(HadError, match=rf"{re.escape(str(path))}:\d+: ") as caught:
        load_accelerator(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("missing", ["source: rtl", "node_nm: 65, ", "unit: mW, ", "value: 1.54, "])
def test_a_constant_needs_value_unit_node_and_source(tmp_path: Path, missing: str) -> None:
    line = "      power: {value: 1.54, unit: mW, node_nm: 65, source: rtl}"
    key = missing.split(":")[0]
    text = CAMFORMER.replace(line, line.replace(missing, ""), 1)
    refuse(tmp_path, text, line_of(text, "1.54" if key != "value" else "mW, node"), key)


def test_a_spec_needs_a_source_of_its_own(tmp_path: Path) -> None:
    text = re.sub(r"^source: .*\n", "", CAMFORMER, flags=re.MULTILINE)
    refuse(tmp_path, text, 2, "missing key 'source'")


def test_unknown_names_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HadError, match="unknown accelerator 'camfromer'; known: a3, camformer"):
        load_accelerator("camfromer")
    with pytest.raises(HadError, match="cannot read"):
        load_accelerator(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1", encoding="utf-8")
    with pytest.raises(HadError, match="not valid YAML"):
        load_accelerator(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- a", encoding="utf-8")
    with pytest.raises(HadError, match="must hold a mapping"):
        load_accelerator(tmp_path / "list.yaml")


def test_scaling_between_nodes_goes_there_and_back() -> None:
    power = Quantity("power", 1.0, "W", 65, "made up")
    assert power.at(65) == pytest.approx(1000)
    assert power.at(45) == pytest.approx(1000 * 0.48 / 0.92)
    assert scaling(45).area == scaling(45).energy == 1


def test_smaller_nodes_are_smaller() -> None:
    nodes = [scaling(node) for node in (65, 45, 32, 22, 16, 7)]
    for larger, smaller in pairwise(nodes):
        assert smaller.area < larger.area
        assert smaller.energy < larger.energy


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_hydra_group_names_shipped_accelerators(path: Path) -> None:
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(config) == {"accelerators", "baseline"}
    assert set(config["accelerators"]) | {config["baseline"]} <= set(available())


def test_tables_hold_no_duplicate_keys() -> None:
    tables = sorted((PACKAGE / "tables").glob("*.yaml"))
    assert [read_yaml(path).path for path in tables] == tables
