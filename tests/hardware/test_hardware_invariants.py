"""What must hold for every accelerator, whatever its numbers."""

from dataclasses import replace
from itertools import pairwise

import pytest

from had.hardware import AttentionWorkload, LayerWorkload, load_accelerator
from had.hardware.accelerator import Operation, PipelineAccelerator
from had.hardware.spec import available, load_pipeline

PIPELINES = [
    name for name in available() if isinstance(load_accelerator(name), PipelineAccelerator)
]
LAYER = LayerWorkload(
    heads=12, kv_heads=12, head_dim=64, value_dim=64, query_length=200, key_length=512, n=30
)


def one(**changes: float) -> AttentionWorkload:
    return AttentionWorkload((replace(LAYER, **changes),))


def figures(name: str, workload: AttentionWorkload) -> tuple[float, float, float]:
    report = load_pipeline(name).evaluate(workload)
    return report.energy_pj, report.area_mm2, report.latency_s


def assert_never_falls(rows: list[tuple[float, float, float]]) -> None:
    for smaller, larger in pairwise(rows):
        assert all(b >= a * (1 - 1e-12) for a, b in zip(smaller, larger, strict=True))
    assert rows[-1][0] > rows[0][0]


def test_every_composed_accelerator_is_covered() -> None:
    assert PIPELINES == ["camformer", "had_cam", "had_digital", "int8", "standard"]


@pytest.mark.parametrize("name", PIPELINES)
def test_costs_grow_with_context(name: str) -> None:
    lengths = [33.5, 64, 100, 512, 1024, 4096, 65536]
    assert_never_falls([figures(name, one(key_length=keys, n=30)) for keys in lengths])


@pytest.mark.parametrize("name", ["camformer", "had_cam", "had_digital"])
def test_costs_grow_with_kept_keys(name: str) -> None:
    kept = [1, 2, 8, 15, 30, 64, 300]
    assert_never_falls([figures(name, one(key_length=16384, n=n)) for n in kept])


@pytest.mark.parametrize("name", ["standard", "int8"])
def test_a_dense_design_does_not_care_how_many_keys_are_kept(name: str) -> None:
    assert figures(name, one(n=1)) == figures(name, one(n=512))


@pytest.mark.parametrize("name", ["camformer", "had_cam", "had_digital"])
def test_costs_grow_with_bits_of_values(name: str) -> None:
    assert_never_falls([figures(name, one(bits_value=bits)) for bits in (4, 8, 12, 16)])


def test_costs_grow_with_bits_of_scores() -> None:
    free = replace(load_pipeline("had_digital"), operation=Operation())
    reports = [free.evaluate(one(bits_query=bits, bits_key=bits)) for bits in (1, 2, 4, 8, 12, 16)]
    assert_never_falls([(r.energy_pj, r.area_mm2, r.latency_s) for r in reports])


@pytest.mark.parametrize("name", PIPELINES)
def test_samples_and_layers_add_up(name: str) -> None:
    design = load_pipeline(name)
    short, long = one(key_length=100).layers[0], one(key_length=300).layers[0]
    apart = [design.evaluate(AttentionWorkload((layer,))) for layer in (short, long)]
    together = design.evaluate(AttentionWorkload((short, long)))
    assert together.energy_pj == pytest.approx(sum(report.energy_pj for report in apart))
    assert together.latency_s == pytest.approx(sum(report.latency_s for report in apart))
    assert together.area_mm2 == pytest.approx(max(report.area_mm2 for report in apart))


@pytest.mark.parametrize("name", PIPELINES)
def test_stages_sum_to_the_latency_of_one_pass(name: str) -> None:
    design = load_pipeline(name)
    report = design.evaluate(one(heads=1, kv_heads=1, query_length=1))
    cycles = sum(stage.cycles for stage in report.stages)
    assert report.latency_s == pytest.approx(cycles / (design.clock_ghz * 1e9))
    assert report.power_w * report.busy_s == pytest.approx(report.energy_pj * 1e-12)


def test_sixteen_bit_scores_with_all_keys_kept_are_the_dense_design() -> None:
    dense = load_pipeline("standard")
    lanes = {part.name: part for part in dense.components}
    ours = load_pipeline("had_digital")
    components = tuple(
        part.with_lanes(lanes[part.name].copies(*_work(dense))) if part.name in MATCHED else part
        for part in ours.components
    )
    ours = replace(ours, components=components, operation=Operation())
    workload = one(n=512, bits_query=16, bits_key=16, bits_value=16)
    mine, theirs = ours.evaluate(workload), dense.evaluate(workload)
    assert mine.energy_pj == pytest.approx(theirs.energy_pj)
    assert mine.latency_s == pytest.approx(theirs.latency_s)
    idle = {"queue", "queue_cells"}
    busy_area = sum(part.area_um2 for part in mine.components if part.name not in idle)
    assert busy_area == pytest.approx(theirs.area_mm2 * 1e6)


MATCHED = {"score_macs", "value_macs", "table", "accumulator", "divider"}


def _work(design: PipelineAccelerator) -> tuple[object, object]:
    return design.work(LAYER), design.tiling


@pytest.mark.parametrize("name", PIPELINES)
def test_energy_and_area_scale_with_the_node(name: str) -> None:
    design = load_pipeline(name)
    old, new = design.at_node(65).evaluate(one()), design.at_node(45).evaluate(one())
    assert new.onchip_energy_pj / old.onchip_energy_pj == pytest.approx(0.48 / 0.92)
    assert new.area_mm2 / old.area_mm2 == pytest.approx(0.66)
    dram = [
        [part.energy_pj for part in report.components if not part.on_chip] for report in (old, new)
    ]
    assert dram[0] == dram[1]


def test_shared_keys_cost_less_memory_traffic() -> None:
    alone, grouped = (
        load_pipeline("standard").evaluate(one(kv_heads=kv, query_length=1)) for kv in (12, 3)
    )
    assert grouped.onchip_energy_pj == alone.onchip_energy_pj
    # Queries and outputs stay, keys and values are loaded a quarter as often.
    rows = 12 * (64 * 16 + 64 * 16) / 8e6
    assert grouped.dram_traffic_mb - rows == pytest.approx((alone.dram_traffic_mb - rows) / 4)
