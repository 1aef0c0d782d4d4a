"""A real device as a roofline: bytes over bandwidth, operations over peak, whichever is longer.

It bounds a kernel from below and says nothing about how close one comes. Energy is board power
times time, an upper bound as long as a device draws less than its limit.
"""

from __future__ import annotations

from dataclasses import dataclass

from had.hardware.accelerator import Operation
from had.hardware.costs import ComponentCost, CostReport, StageCost
from had.hardware.workload import EXACT_BITS, AttentionWorkload, LayerWorkload


@dataclass(frozen=True)
class RooflineDevice:
    """A device and the kernel that runs on it.

    Attributes:
        name: Name of the spec.
        title: One line on what it is.
        operation: What the kernel computes.
        bandwidth_tb_s: Memory bandwidth in TB/s.
        score_tops: Rate of the query-key products in 1e12 operations a second, 2 a product.
        value_tops: Rate of the probability-value products in 1e12 operations a second.
        exp_tops: Exponentials in 1e12 a second.
        launch_us: Time of one kernel beside its work, in us.
        kernels: Kernels a layer takes.
        power_w: Board power in W.
        area_mm2: Die area in mm2.
    """

    name: str
    title: str
    operation: Operation
    bandwidth_tb_s: float
    score_tops: float
    value_tops: float
    exp_tops: float
    launch_us: float
    kernels: float
    power_w: float
    area_mm2: float

    def evaluate(self, workload: AttentionWorkload) -> CostReport:
        """Return the bound for a workload."""
        layers = [self.operation.apply(layer) for layer in workload.layers]
        traffic = [layer_bytes(layer) for layer in layers]
        times = [self._seconds(layer, size) for layer, size in zip(layers, traffic, strict=True)]
        total, passes = sum(times), sum(layer.passes for layer in layers)
        board = ComponentCost(
            name="board",
            stage="attention",
            energy_pj=total * self.power_w * 1e12,
            area_um2=self.area_mm2 * 1e6,
            rated_mw=self.power_w * 1e3,
        )
        memory = ComponentCost(
            "memory", "attention", 0.0, traffic_bits=8 * sum(traffic), on_chip=False
        )
        return CostReport(
            accelerator=self.name,
            title=self.title,
            workload=workload,
            components=(board, memory),
            stages=(StageCost("attention", total / passes * 1e9),),
            busy_s=total,
            latency_s=total,
            notes=("a roofline: a lower bound on time, board power times time for energy",),
        )

    def _seconds(self, layer: LayerWorkload, size: float) -> float:
        scores = layer.passes * layer.key_length
        values = layer.passes * layer.kept
        products = (
            2 * scores * layer.head_dim / self.score_tops
            + 2 * values * layer.value_dim / self.value_tops
            + 2 * layer.passes * layer.exact * layer.head_dim / self.value_tops
        )
        bounds = (size / self.bandwidth_tb_s, products, values / self.exp_tops)
        return max(bounds) * 1e-12 + self.kernels * self.launch_us * 1e-6


def layer_bytes(layer: LayerWorkload) -> float:
    """Return the bytes one layer and sample move at least: queries, keys, values used, outputs.

    Keys and values are read once a key/value head. Of the values only the kept rows are read, and
    the worst case counts: no two query rows of a head group pick the same one, until all are read.
    """
    group = layer.heads // layer.kv_heads
    rows = min(layer.key_length, group * layer.query_length * layer.kept)
    keys = layer.kv_heads * layer.key_length * layer.head_dim * layer.bits_key
    values = layer.kv_heads * rows * layer.value_dim * layer.bits_value
    queries = layer.passes * (layer.head_dim * layer.bits_query + layer.value_dim * 16)
    # Keys and queries in full precision are there as well, not instead.
    exact = layer.kv_heads * layer.exact_loaded * layer.head_dim * EXACT_BITS
    exact += layer.passes * layer.head_dim * EXACT_BITS if layer.exact else 0.0
    return (keys + values + queries + exact) / 8
