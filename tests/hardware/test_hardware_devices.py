"""Rooflines of a real device, and designs known by published rates."""

import pytest

from had.hardware import AttentionWorkload, LayerWorkload, compare, evaluate
from had.hardware.ledgers import camformer_workload
from had.hardware.roofline import layer_bytes


def decode(batch: int, keys: int, n: int) -> AttentionWorkload:
    """Return one decoding step of a batch, 32 query and 8 key/value heads of 128 a sample."""
    layer = LayerWorkload(
        heads=32 * batch,
        kv_heads=8 * batch,
        head_dim=128,
        value_dim=128,
        query_length=1,
        key_length=keys,
        n=n,
    )
    return AttentionWorkload((layer,))


@pytest.mark.parametrize(
    ("name", "per_ms", "per_mj", "power_w"),
    [
        ("mnnfast", 28.39, 28.4, 1.0),
        ("a3", 52.28, 63.6, 0.822),
        ("spatten", 85.17, 90.4, 0.942),
    ],
)
def test_published_rates_on_the_camformer_workload(
    name: str, per_ms: float, per_mj: float, power_w: float
) -> None:
    report = evaluate(camformer_workload(), name)
    assert report.published
    assert report.queries_per_ms == pytest.approx(per_ms, rel=1e-3)
    assert report.queries_per_mj == pytest.approx(per_mj, rel=1e-3)
    assert report.power_w == pytest.approx(power_w, rel=1e-3)


def test_camformer_against_the_published_designs() -> None:
    # 12.6, 17.9 and 40 times the queries a mJ; 2.2, 3.7 and 6.7 times the queries a ms.
    ours, *others = compare(camformer_workload(), ["camformer", "spatten", "a3", "mnnfast"])
    energy = [ours.queries_per_mj / other.queries_per_mj for other in others]
    speed = [ours.queries_per_ms / other.queries_per_ms for other in others]
    # The last printed digit.
    assert energy == pytest.approx([12.6, 17.9, 40], abs=0.1)
    assert speed == pytest.approx([2.2, 3.7, 6.7], abs=0.05)


@pytest.mark.parametrize(
    ("batch", "keys", "measured_us"), [(8, 131072, 923.5), (1, 1 << 20, 922.6), (8, 32768, 237.9)]
)
def test_dense_decoding_bound_meets_the_measured_kernels(
    batch: int, keys: int, measured_us: float
) -> None:
    report = evaluate(decode(batch, keys, keys), "h200")
    assert report.latency_s * 1e6 == pytest.approx(measured_us, rel=0.05)


@pytest.mark.parametrize(
    ("batch", "keys", "n", "measured_us"),
    [(8, 131072, 512, 56.4), (1, 1 << 20, 10485, 74.5), (1, 131072, 512, 17.6)],
)
def test_packed_decoding_bound_is_below_the_measured_kernels(
    batch: int, keys: int, n: int, measured_us: float
) -> None:
    workload = decode(batch, keys, n)
    dense, packed = compare(workload, ["h200", "h200_packed"])
    assert packed.latency_s * 1e6 < measured_us < dense.latency_s * 1e6


def test_bytes_of_a_decoding_step_by_hand() -> None:
    layer = LayerWorkload(
        heads=4, kv_heads=2, head_dim=8, value_dim=16, query_length=1, key_length=100, n=10
    )
    keys = 2 * 100 * 8 * 1
    values = 2 * (2 * 10) * 16 * 16  # two query heads of a group pick different rows
    queries = 4 * (8 * 1 + 16 * 16)
    assert layer_bytes(layer) == (keys + values + queries) / 8


def test_rows_picked_by_a_group_never_exceed_the_rows_there_are() -> None:
    layer = LayerWorkload(
        heads=8, kv_heads=1, head_dim=8, value_dim=8, query_length=50, key_length=100, n=10
    )
    dense = LayerWorkload(**(vars(layer) | {"n": 100}))
    assert layer_bytes(layer) == layer_bytes(dense)
