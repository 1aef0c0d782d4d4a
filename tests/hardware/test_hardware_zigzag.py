"""Products and memory accesses of the dense scores against the public mapper ZigZag."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from had.hardware.ledgers import zigzag_rows

KEYS, DIM = 1024, 64


def port(name: str, kind: str, bits: int, *allocation: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": kind,
        "bandwidth_min": bits,
        "bandwidth_max": bits,
        "allocation": list(allocation),
    }


def memory(size: int, read_pj: float, operands: str, served: str, *ports: Any) -> dict[str, Any]:
    return {
        "size": size,
        "r_cost": read_pj,
        "w_cost": 0.0,
        "area": 0,
        "latency": 1,
        "auto_cost_extraction": False,
        "operands": operands.split(),
        "served_dimensions": served.split(),
        "ports": list(ports),
    }


# An array of 64 x 4 bf16 multipliers at 1.5 pJ, keys from SRAM at 10 pJ for 64 bits. Accumulators
# and the memory behind are free: only the two costs to be compared remain.
HARDWARE = {
    "name": "dense_scores",
    "memories": {
        "accumulator": memory(
            32,
            0.0,
            "O",
            "D1",
            port("w_port_1", "write", 32, "O, fh"),
            port("r_port_1", "read", 32, "O, tl"),
            port("w_port_2", "write", 32, "O, fl"),
            port("r_port_2", "read", 32, "O, th"),
        ),
        "key_sram": memory(
            KEYS * DIM * 16,
            10.0,
            "I2",
            "D1 D2",
            port("rw_port_1", "read_write", 64, "I2, tl", "I2, fh"),
        ),
        "behind": memory(
            1 << 24,
            0.0,
            "I1 I2 O",
            "D1 D2",
            port("rw_port_1", "read_write", 4096, "I1, tl"),
            port("rw_port_2", "read_write", 4096, "I2, tl"),
            port("rw_port_3", "read_write", 4096, "O, tl", "O, fl"),
        ),
    },
    "operational_array": {
        "input_precision": [16, 16],
        "unit_energy": 1.5,
        "unit_area": 1,
        "dimensions": ["D1", "D2"],
        "sizes": [64, 4],
    },
}
WORKLOAD = [
    {
        "id": 0,
        "name": "scores",
        "operator_type": "Gemm",
        "equation": "O[b][k]+=I[b][c]*W[c][k]",
        "loop_dims": ["B", "K", "C"],
        "loop_sizes": [1, KEYS, DIM],
        "operand_precision": {"I": 16, "W": 16, "O": 32, "O_final": 16},
        "operand_source": {"W": 0, "I": 0},
    }
]
MAPPING = [
    {
        "name": "default",
        "spatial_mapping": {"D1": ["C, 64"], "D2": ["K, 4"]},
        "memory_operand_links": {"O": "O", "W": "I2", "I": "I1"},
    }
]


def test_dense_scores_cost_what_zigzag_says(tmp_path: Path) -> None:
    api = pytest.importorskip("zigzag.api")
    files = []
    for name, content in (("workload", WORKLOAD), ("hardware", HARDWARE), ("mapping", MAPPING)):
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    energy_pj, *_ = api.get_hardware_performance_zigzag(
        *(str(file) for file in files),
        opt="energy",
        dump_folder=str(tmp_path / "out"),
        loma_show_progress_bar=False,
    )
    rows = {row.label: row for row in zigzag_rows()}
    ours = rows["dense scores of a head pass, nJ"]
    assert ours.model == pytest.approx(energy_pj / 1e3, rel=1e-6)
    assert ours.published == pytest.approx(energy_pj / 1e3, rel=1e-3)


def test_dense_scores_by_hand() -> None:
    rows = {row.label: row.model for row in zigzag_rows()}
    assert rows["products, nJ"] == pytest.approx(KEYS * DIM * 1.5e-3)
    assert rows["key SRAM, nJ"] == pytest.approx(KEYS * DIM * 16 / 64 * 10e-3)
