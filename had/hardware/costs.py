"""What an accelerator costs on a workload, split by component: the result type of every model."""

from __future__ import annotations

from dataclasses import dataclass, field

from had.hardware.workload import AttentionWorkload

PJ_PER_NJ = 1e3
UM2_PER_MM2 = 1e6


@dataclass(frozen=True)
class ComponentCost:
    """One component's share.

    Attributes:
        name: Name of the component.
        stage: Stage it belongs to.
        energy_pj: Energy of one sample in pJ.
        area_um2: Area in um2, 0 off chip.
        rated_mw: Power its source rates it at in mW, 0 where the source gives none.
        traffic_bits: Memory traffic of one sample in bits.
        on_chip: False for DRAM.
    """

    name: str
    stage: str
    energy_pj: float
    area_um2: float = 0.0
    rated_mw: float = 0.0
    traffic_bits: float = 0.0
    on_chip: bool = True


@dataclass(frozen=True)
class StageCost:
    """Cycles of one stage for one head pass, averaged over the passes of the workload."""

    name: str
    cycles: float


@dataclass(frozen=True)
class CostReport:
    """The cost of one workload on one accelerator.

    A query is one query row in one layer with all its heads, the unit of the published tables.

    Attributes:
        accelerator: Name of the accelerator.
        title: One line on what it is.
        workload: What was priced.
        components: Shares that sum to the whole.
        stages: Cycles of one head pass by stage.
        busy_s: Seconds one sample occupies the accelerator when samples follow back to back.
        latency_s: Seconds from the start of a sample to its end.
        node_nm: Node the figures hold for, None where it does not apply.
        area_known: False where the source of a published row gives no area.
        published: True for figures taken from a publication instead of the component model.
        notes: Sentences a reader must know to judge the figures.
    """

    accelerator: str
    title: str
    workload: AttentionWorkload
    components: tuple[ComponentCost, ...]
    stages: tuple[StageCost, ...]
    busy_s: float
    latency_s: float
    node_nm: int | None = None
    area_known: bool = True
    published: bool = False
    notes: tuple[str, ...] = field(default=())

    @property
    def energy_pj(self) -> float:
        """Energy of one sample in pJ, DRAM included."""
        return sum(part.energy_pj for part in self.components)

    @property
    def onchip_energy_pj(self) -> float:
        """Energy of one sample in pJ without DRAM."""
        return sum(part.energy_pj for part in self.components if part.on_chip)

    @property
    def energy_per_query_nj(self) -> float:
        """Energy of one query in nJ, DRAM included."""
        return self.energy_pj / self.workload.queries / PJ_PER_NJ

    @property
    def onchip_energy_per_query_nj(self) -> float:
        """Energy of one query in nJ without DRAM."""
        return self.onchip_energy_pj / self.workload.queries / PJ_PER_NJ

    @property
    def area_mm2(self) -> float:
        """Area in mm2."""
        return sum(part.area_um2 for part in self.components) / UM2_PER_MM2

    @property
    def power_w(self) -> float:
        """Average power in W, samples back to back, DRAM included."""
        return self.energy_pj * 1e-12 / self.busy_s

    @property
    def onchip_power_w(self) -> float:
        """Average power in W, samples back to back, without DRAM."""
        return self.onchip_energy_pj * 1e-12 / self.busy_s

    @property
    def rated_power_w(self) -> float:
        """Sum of the power ratings of the components that have one, all active at once, in W."""
        return sum(part.rated_mw for part in self.components) / 1e3

    @property
    def queries_per_ms(self) -> float:
        """Queries per millisecond, samples back to back."""
        return self.workload.queries / self.busy_s / 1e3

    @property
    def queries_per_mj(self) -> float:
        """Queries per millijoule, DRAM included."""
        return 1e6 / self.energy_per_query_nj

    @property
    def onchip_traffic_mb(self) -> float:
        """On-chip memory traffic of one sample in MB."""
        return sum(part.traffic_bits for part in self.components if part.on_chip) / 8e6

    @property
    def dram_traffic_mb(self) -> float:
        """Off-chip traffic of one sample in MB."""
        return sum(part.traffic_bits for part in self.components if not part.on_chip) / 8e6

    def quantities(self) -> dict[str, float]:
        """Return the figures by `<quantity>_<unit>`."""
        figures = {
            "energy_per_query_nj": self.energy_per_query_nj,
            "onchip_energy_per_query_nj": self.onchip_energy_per_query_nj,
            "energy_per_sample_uj": self.energy_pj / 1e6,
            "power_w": self.power_w,
            "latency_us": self.latency_s * 1e6,
            "queries_per_ms": self.queries_per_ms,
            "queries_per_mj": self.queries_per_mj,
            "onchip_traffic_mb": self.onchip_traffic_mb,
            "dram_traffic_mb": self.dram_traffic_mb,
        }
        return figures | ({"area_mm2": self.area_mm2} if self.area_known else {})

    def ratios(self, baseline: CostReport) -> dict[str, float]:
        """Return this accelerator over `baseline` for energy, area, power and latency.

        Energy is that on the chip: the DRAM figures of published ledgers differ by more than an
        order of magnitude and would decide the ratio alone.
        """
        ratios = {
            "energy_ratio": self.onchip_energy_pj / baseline.onchip_energy_pj,
            "power_ratio": self.onchip_power_w / baseline.onchip_power_w,
            "latency_ratio": self.latency_s / baseline.latency_s,
        }
        known = self.area_known and baseline.area_known
        return ratios | ({"area_ratio": self.area_mm2 / baseline.area_mm2} if known else {})

    def flat(self, baseline: CostReport | None = None) -> dict[str, float]:
        """Return `hw/<accelerator>/<quantity>_<unit>` keys, and ratios if there is a baseline."""
        ratios = {} if baseline is None else self.ratios(baseline)
        figures = self.quantities() | ratios
        return {f"hw/{self.accelerator}/{name}": value for name, value in figures.items()}
