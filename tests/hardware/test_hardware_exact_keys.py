"""Keys that stay in full precision are paid for, by hand-computed amounts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from had.errors import HadError
from had.hardware import AttentionWorkload, LayerWorkload, evaluate
from had.hardware.roofline import layer_bytes

LAYER = LayerWorkload(
    heads=8, kv_heads=4, head_dim=64, value_dim=64, query_length=100, key_length=1024, n=64
)
EXACT = replace(LAYER, exact=17)


def energies(layer: LayerWorkload, accelerator: str) -> dict[str, float]:
    report = evaluate(AttentionWorkload((layer,)), accelerator)
    return {part.name: part.energy_pj / layer.passes for part in report.components}


@pytest.mark.parametrize("accelerator", ["had_digital", "camformer", "had_cam"])
def test_one_bit_designs_multiply_and_read_them(accelerator: str) -> None:
    plain, exact = (energies(layer, accelerator) for layer in (LAYER, EXACT))
    # 17 keys of 64 products at 1.5 pJ; 18 vectors of 64 x 16 bits, 10 pJ for 64 bits.
    assert exact.pop("exact_macs") == pytest.approx(17 * 64 * 1.5)
    assert exact.pop("exact_keys") == pytest.approx(18 * 64 * 16 / 64 * 10)
    exact.pop("dram", None), plain.pop("dram", None)
    assert exact == plain


def test_dram_brings_each_of_them_once() -> None:
    plain, exact = (energies(layer, "had_digital")["dram"] for layer in (LAYER, EXACT))
    # 100 rows see 17 + 99 keys, shared by the two heads of each key head; and 16 bits a query.
    bits = (17 + 99) * 64 * 16 / (100 * 2) + 64 * 16
    assert exact - plain == pytest.approx(8 * bits)


@pytest.mark.parametrize("accelerator", ["standard", "int8"])
def test_dense_designs_have_all_keys_in_full_precision_anyway(accelerator: str) -> None:
    assert energies(EXACT, accelerator) == energies(LAYER, accelerator)


def test_a_roofline_moves_them() -> None:
    moved = layer_bytes(EXACT) - layer_bytes(LAYER)
    assert moved == pytest.approx(2 * (4 * (17 + 99) * 64 + 8 * 100 * 64))


def test_fewer_than_none_are_refused() -> None:
    with pytest.raises(HadError, match="exact"):
        replace(LAYER, exact=-1)
