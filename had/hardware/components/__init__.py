"""Components that accelerators are composed of, by the name a spec calls them."""

from __future__ import annotations

from had.hardware.components.arrays import (
    Adc,
    CamArray,
    ExactMacs,
    ReprogrammedCam,
    RowUnit,
    ScoreMacs,
    ValueMacs,
    WideRowUnit,
)
from had.hardware.components.base import Component, Tiling
from had.hardware.components.memories import (
    DramGather,
    DramStream,
    ExactKeyBits,
    KeyBits,
    KeyMemory,
    ScoreBits,
    ValueBits,
    ValueMemory,
    ValuePrefetch,
    VectorBits,
)
from had.hardware.components.selection import (
    CandidateRegister,
    MergeTop,
    QueueComparators,
    QueueRegisters,
    RowsTop,
    TilePost,
    TileTop,
    WholePass,
    expected_recall,
)
from had.hardware.components.vectors import PerKept, QueryBuffer, RowsBuffer

COMPONENTS: dict[str, type[Component]] = {
    "adc": Adc,
    "cam": CamArray,
    "candidate_register": CandidateRegister,
    "dram_gather": DramGather,
    "dram_stream": DramStream,
    "exact_key_bits": ExactKeyBits,
    "exact_macs": ExactMacs,
    "key_bits": KeyBits,
    "key_memory": KeyMemory,
    "merge_top": MergeTop,
    "per_kept": PerKept,
    "query_buffer": QueryBuffer,
    "queue_comparators": QueueComparators,
    "queue_registers": QueueRegisters,
    "reprogrammed_cam": ReprogrammedCam,
    "row_unit": RowUnit,
    "rows_buffer": RowsBuffer,
    "rows_top": RowsTop,
    "score_bits": ScoreBits,
    "score_macs": ScoreMacs,
    "tile_post": TilePost,
    "tile_top": TileTop,
    "value_bits": ValueBits,
    "value_macs": ValueMacs,
    "value_memory": ValueMemory,
    "value_prefetch": ValuePrefetch,
    "vector_bits": VectorBits,
    "whole_pass": WholePass,
    "wide_row_unit": WideRowUnit,
}

__all__ = ["COMPONENTS", "Component", "Tiling", "expected_recall"]
