"""The published ledgers beside the model: what was printed, what the components give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from had.hardware.costs import CostReport
from had.hardware.spec import load_pipeline
from had.hardware.technology import TABLES
from had.hardware.workload import AttentionWorkload, LayerWorkload
from had.hardware.yaml_file import Section, read_yaml

# The CAMformer release divides by twice the energy of a single head; why twice is not explained.
PUBLISHED_ENERGY_FACTOR = 2


@dataclass(frozen=True)
class LedgerRow:
    """One published figure and the model's.

    Attributes:
        label: What it is.
        published: The printed value.
        model: The value of the component model.
    """

    label: str
    published: float
    model: float

    @property
    def deviation_percent(self) -> float:
        """Return how far the model is from print as a percentage of print, to two digits."""
        return round(100 * (self.model / self.published - 1), 2) + 0.0


def published(name: str) -> Section:
    """Return the entry of `tables/ledgers.yaml` of that name.

    Raises:
        HadError: There is none.
    """
    return read_yaml(TABLES / "ledgers.yaml").section(name)


def camformer_workload(kept: int = 32) -> AttentionWorkload:
    """Return one query of 16 heads on 1,024 keys of 64, the workload of the CAMformer ledger."""
    return _one_query(heads=16, dim=64, kept=kept)


def had_cam_workload() -> AttentionWorkload:
    """Return one query on 1,024 keys, all 1,024 wide, the workload of the 96 x 96 ledger."""
    return _one_query(heads=1, dim=1024, kept=30)


def single_head_queries_per_mj(report: CostReport) -> float:
    """Return queries per mJ as the CAMformer release counts them: one head, and half of that."""
    layer = report.workload.layers[0]
    return report.queries_per_mj * layer.heads / PUBLISHED_ENERGY_FACTOR


def camformer_rows() -> list[LedgerRow]:
    """Return the CAMformer ledger and its sweeps beside the model."""
    design = load_pipeline("camformer")
    base = design.evaluate(camformer_workload())
    model = {f"{stage.name} cycles": stage.cycles for stage in base.stages}
    model |= {
        "energy of a head pass, nJ": base.energy_per_query_nj / 16,
        "on-chip energy of a head pass, nJ": base.onchip_energy_per_query_nj / 16,
        "area, um2": base.area_mm2 * 1e6,
        "on-chip power, mW": base.onchip_power_w * 1e3,
        "power with DRAM, mW": base.power_w * 1e3,
        "queries/ms, 16 heads": base.queries_per_ms,
        "queries/mJ, 16 heads": base.queries_per_mj,
    }
    for kept in (8, 16, 24, 32):
        report = design.evaluate(camformer_workload(kept))
        label = f"queries/mJ, one head and factor 2 (k = {kept})"
        model[label] = single_head_queries_per_mj(report)
    for rows in (4, 8, 32):
        report = design.with_rows(rows).evaluate(camformer_workload())
        tile = f"tile of {rows} rows"
        model[f"queries/ms, {tile}"] = report.queries_per_ms
        model[f"queries/mJ, one head and factor 2, {tile}"] = single_head_queries_per_mj(report)
        model[f"area, mm2, {tile}"] = report.area_mm2
    return _beside("camformer", model)


def had_cam_rows() -> list[LedgerRow]:
    """Return the 96 x 96 ledger and its sweep of array sizes beside the model, at 65 nm."""
    design = load_pipeline("had_cam").at_node(65)
    model: dict[str, float] = {}
    for size in (32, 64, 96, 128):
        report = design.with_array(size, size).evaluate(had_cam_workload())
        model[f"area, mm2, array of {size}"] = report.area_mm2
        model[f"rated power, W, array of {size}"] = report.rated_power_w
        model[f"score cycles, array of {size}"] = report.stages[0].cycles
        model[f"latency, us, array of {size}"] = report.latency_s * 1e6
    return _beside("had_cam", model)


def zigzag_rows() -> list[LedgerRow]:
    """Return the dense scores of one head pass as ZigZag prices them, beside the model."""
    design = load_pipeline("standard")
    report = design.evaluate(_one_query(heads=1, dim=64, kept=1024))
    energy = {part.name: part.energy_pj / 1e3 for part in report.components}
    model = {
        "products, nJ": energy["score_macs"],
        "key SRAM, nJ": energy["key_sram"],
        "dense scores of a head pass, nJ": energy["score_macs"] + energy["key_sram"],
    }
    return _beside("zigzag", model)


def _beside(name: str, model: Mapping[str, float]) -> list[LedgerRow]:
    printed = published(name).section("values")
    return [LedgerRow(label, printed.number(label), model[label]) for label in printed]


def _one_query(*, heads: int, dim: int, kept: int) -> AttentionWorkload:
    layer = LayerWorkload(
        heads=heads,
        kv_heads=heads,
        head_dim=dim,
        value_dim=dim,
        query_length=1,
        key_length=1024,
        n=kept,
    )
    return AttentionWorkload((layer,), f"one query, {heads} x {dim}, 1024 keys, N = {kept}")
