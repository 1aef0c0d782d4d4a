"""Cases small enough to price by hand, written out."""

from pathlib import Path

import pytest

from had.hardware import AttentionWorkload, LayerWorkload, load_accelerator
from had.hardware.components.base import Tiling
from had.hardware.spec import load_pipeline
from had.hardware.workload import head_pass

TWO_KEYS = LayerWorkload(
    heads=1, kv_heads=1, head_dim=4, value_dim=4, query_length=1, key_length=2, n=1
)

TINY_CAM = """
name: tiny
kind: pipeline
title: "2 x 2 CAM"
source: "made up"
node_nm: 45
clock_ghz: 0.5
tiling: {rows: 2, columns: 2}
overlap: overlapped
stages:
  scores: [[cam, top]]
  values: [[macs]]
components:
  cam:
    kind: reprogrammed_cam
    stage: scores
    reference_rows: 2
    reference_columns: 2
    rows_per_write: 1
    unit:
      power: {value: 3, unit: mW, node_nm: 45, source: made up}
      area: {value: 10, unit: um2, node_nm: 45, source: made up}
  top:
    kind: tile_top
    stage: scores
    keep: 1
    unit:
      delay: 2
      energy: {value: 7, unit: pJ, node_nm: 45, source: made up}
      area: {value: 5, unit: um2, node_nm: 45, source: made up}
  macs:
    kind: value_macs
    stage: values
    lanes: 3
    units:
      16:
        delay: 4
        interval: 1
        energy: {value: 2, unit: pJ, node_nm: 45, source: made up}
        area: {value: 100, unit: um2, node_nm: 45, source: made up}
"""


def test_two_keys_one_kept_in_digital_logic() -> None:
    report = load_pipeline("had_digital").evaluate(AttentionWorkload((TWO_KEYS,)))
    energy = {part.name: part.energy_pj for part in report.components}
    assert energy["vectors"] == pytest.approx((4 * 1 + 4 * 16) * 0.009)  # query and output bits
    assert energy["key_sram"] == pytest.approx(10)  # 2 x 4 bits in one word of 64
    assert energy["score_macs"] == pytest.approx(2 * 4 * 5.625e-3)
    assert energy["queue"] == pytest.approx((2 * 1 + 1 * 3) * 0.01105125)  # arrivals and merge
    assert energy["queue_cells"] == pytest.approx(2 * 0.5 * 0.288)  # both taken, half of one cell
    assert energy["scores"] == pytest.approx(10)  # 4 x 16 bits
    assert energy["table"] == pytest.approx(1.418)
    assert energy["accumulator"] == pytest.approx(2.141 * 0.48 / 0.92)
    assert energy["divider"] == pytest.approx(3 * 0.07109)
    assert energy["value_sram"] == pytest.approx(10)  # 4 x 16 bits
    assert energy["value_macs"] == pytest.approx(4 * 1.5)
    # Keys 2 x 4 x 1, values 2 x 4 x 16, query 4 x 1 and output 4 x 16 bits at 8 pJ.
    assert energy["dram"] == pytest.approx((8 + 128 + 4 + 64) * 8)


def test_two_keys_one_kept_takes_these_cycles() -> None:
    design = load_pipeline("had_digital")
    # Scores: one start of the products, two of the queue, delays 4 and 1.
    # Softmax: table and accumulator 1 + 1, then the divider 3. Values: one start, delay 4.
    assert design.stage_cycles(head_pass(TWO_KEYS)) == {
        "association": 1 + 4 + 1,
        "normalisation": 2 + 3,
        "contextualisation": 4,
    }


def test_a_two_by_two_cam_from_one_yaml(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_CAM)
    report = load_accelerator(path).evaluate(AttentionWorkload((TWO_KEYS,)))
    energy = {part.name: part.energy_pj for part in report.components}
    # One row tile, two column tiles, each written in two steps and searched: 6 cycles of 2 ns.
    assert energy["cam"] == pytest.approx(2 * 3 * 3 / 0.5)
    assert energy["top"] == pytest.approx(7)
    assert energy["macs"] == pytest.approx(4 * 2)
    assert report.area_mm2 == pytest.approx((10 + 5 + 3 * 100) * 1e-6)
    # Scores: 5 cycles after the first, delays 1 and 2. Values: 2 uses of 3 lanes, delay 4.
    assert [stage.cycles for stage in report.stages] == [5 + 1 + 2, 1 + 4]
    assert report.latency_s == pytest.approx((8 + 5) * 2e-9)


def test_passes_follow_each_other_at_the_longest_stage(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_CAM)
    layer = LayerWorkload(
        heads=2, kv_heads=1, head_dim=4, value_dim=4, query_length=3, key_length=2, n=1
    )
    report = load_accelerator(path).evaluate(AttentionWorkload((layer, layer)))
    # Six passes a layer, 8 cycles apart, the last one runs out its 13 cycles; two layers.
    assert report.latency_s == pytest.approx(2 * (5 * 8 + 13) * 2e-9)
    assert report.busy_s == pytest.approx(2 * 6 * 8 * 2e-9)
    assert report.queries_per_ms == pytest.approx(2 * 3 / (2 * 6 * 8 * 2e-9) / 1e3)


def test_part_of_a_tile_costs_a_whole_one() -> None:
    tiling = Tiling(rows=16, columns=64)
    layer = LayerWorkload(
        heads=1, kv_heads=1, head_dim=65, value_dim=64, query_length=1, key_length=16.5, n=8
    )
    assert tiling.row_tiles(head_pass(layer)) == 2
    assert tiling.tiles(head_pass(layer)) == 4
