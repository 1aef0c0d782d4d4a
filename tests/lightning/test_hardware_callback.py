"""The cost callback counts what live students really do, and disturbs nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn

import had
from had.errors import HadError
from had.hardware import AttentionWorkload, ModelGeometry, cost_metrics
from had.lightning.callbacks.hardware import HardwareCost
from had.runner import run
from tests.lightning.helpers import tiny
from tests.models import zoo

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


class Student(pl.LightningModule):
    """Runs a model over ready batches."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        zoo.output(self.model, batch)

    test_step = validation_step


class Memory(Logger):
    """Keeps what it is given."""

    name, version = "memory", 0

    def __init__(self) -> None:
        super().__init__()
        self.logged: dict[str, float] = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.logged |= {key: value for key, value in metrics.items() if key != "epoch"}

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to keep."""


def student(name: str, n: int | float) -> Student:
    return Student(had.binarize(zoo.build(name), n=n))


def evaluated(
    module: Student, batches: Sequence[dict[str, Tensor]], *callbacks: pl.Callback
) -> dict[str, float]:
    """Everything that is logged while a module is tested on batches."""
    memory = Memory()
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=memory,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    loader = torch.utils.data.DataLoader(list(batches), batch_size=None)
    trainer.test(module, loader, verbose=False)
    return memory.logged


def counted(name: str, n: int | float, *batches: dict[str, Tensor]) -> AttentionWorkload:
    return workload_of(student(name, n), *batches)


def workload_of(module: Student, *batches: dict[str, Tensor]) -> AttentionWorkload:
    callback = HardwareCost(["standard"])
    evaluated(module, batches, callback)
    workload = callback.workload()
    assert workload is not None
    return workload


def lengths(workload: AttentionWorkload) -> list[tuple[float, float, float]]:
    return [(one.query_length, one.key_length, one.n) for one in workload.layers]


def test_padding_counts_for_nothing() -> None:
    """Real lengths 12, 7 and 2: rows see as many keys as there are rows, and keep 3 at most."""
    expected = (7.0, (144 + 49 + 4) / 21, (12 * 3 + 7 * 3 + 2 * 2) / 21)
    workload = counted("bert", 3, zoo.text())
    assert lengths(workload) == [pytest.approx(expected)] * 2
    shape = workload.layers[0]
    assert (shape.heads, shape.kv_heads, shape.head_dim, shape.value_dim) == (4, 4, 8, 8)
    assert (shape.bits_query, shape.bits_key, shape.bits_value) == (1, 1, 16)


def test_a_fraction_is_one_of_the_keys_in_view() -> None:
    """A quarter of 12, 7 and 2 keys, rounded up: 3, 2 and 1."""
    kept = (12 * 3 + 7 * 2 + 2 * 1) / 21
    assert [one.n for one in counted("bert", 0.25, zoo.text()).layers] == pytest.approx([kept] * 2)


def test_causal_rows_see_what_came_before() -> None:
    """Row i of a text sees i + 1 keys; of 2 layers with 4 query and 2 key/value heads each."""
    seen = (12 * 13 / 2 + 7 * 8 / 2 + 2 * 3 / 2) / 21
    kept = ((1 + 2 + 10 * 3) + (1 + 2 + 5 * 3) + (1 + 2)) / 21
    workload = counted("llama", 3, zoo.text())
    assert lengths(workload) == [pytest.approx((7.0, seen, kept))] * 2
    assert (workload.layers[0].heads, workload.layers[0].kv_heads) == (4, 2)


@pytest.mark.parametrize(("name", "inputs"), [("llama", zoo.text), ("t5", zoo.text_to_text)])
def test_exact_keys_are_counted_where_there_are_any(name: str, inputs: Any) -> None:
    """2 of each row's keys, of its only one 1; cross attention has none."""
    model = had.binarize(zoo.build(name), 3, {"scale": "mean_abs", "recent": 2})
    layers = workload_of(Student(model), inputs()).layers
    causal = (21 * 2 - 3) / 21 if name == "llama" else (6 * 2 - 1) / 6
    expected = [causal] * 2 if name == "llama" else [2.0, 2.0, causal, 0.0, causal, 0.0]
    assert [one.exact for one in layers] == pytest.approx(expected)


def test_images_have_no_padding() -> None:
    """16 patches and the class token, without a mask."""
    assert lengths(counted("timm_vit", 5, zoo.image())) == [(17, 17, 5)] * 2


def test_local_layers_see_their_window() -> None:
    """ModernBERT with 2 neighbours on either side; `had cost` counts the same without a model."""
    full = {"input_ids": zoo.text()["input_ids"], "attention_mask": torch.ones(3, 12)}
    everywhere, nearby = counted("modernbert", 3, full).layers
    assert everywhere.key_length == 12
    assert nearby.key_length == pytest.approx((3 + 4 + 8 * 5 + 4 + 3) / 12)
    geometry = ModelGeometry(2, 4, 8, local_layers=1, window=5)
    assert geometry.workload(12, 3).layers[1].key_length == pytest.approx(nearby.key_length)


def test_cross_attention_counts_its_own_lengths() -> None:
    """T5: 2 encoder layers on 12, 7, 2 tokens, then self and cross attention of 6 decoder rows."""
    workload = counted("t5", 3, zoo.text_to_text())
    encoder, decoder = [7.0, 7.0], [6.0] * 4
    assert [one.query_length for one in workload.layers] == pytest.approx(encoder + decoder)
    self_attention, cross = 3.5, 7.0
    expected = [(144 + 49 + 4) / 21] * 2 + [self_attention, cross] * 2
    assert [one.key_length for one in workload.layers] == pytest.approx(expected)


def test_batches_are_weighed_by_their_samples() -> None:
    """One text of 12 tokens after three of 12, 7 and 2: 33 rows in 4 samples."""
    single = {name: tensor[:1] for name, tensor in zoo.text().items()}
    (layer, _) = counted("bert", 3, zoo.text(), single).layers
    assert layer.query_length == pytest.approx(33 / 4)
    assert layer.key_length == pytest.approx((144 + 49 + 4 + 144) / 33)


def test_what_is_logged_is_the_price_of_the_workload() -> None:
    callback = HardwareCost(["camformer", "had_digital"])
    logged = evaluated(student("bert", 3), [zoo.text()], callback)
    expected = cost_metrics(callback.workload(), ["camformer", "had_digital"], "standard")
    assert callback.metrics == pytest.approx(expected)
    assert logged == pytest.approx(expected)
    assert expected["hw/camformer/energy_ratio"] > 0


def test_an_evaluation_starts_from_nothing() -> None:
    callback, module = HardwareCost(["standard"]), student("bert", 3)
    evaluated(module, [zoo.text()], callback)
    single = {name: tensor[2:] for name, tensor in zoo.text().items()}
    evaluated(module, [single], callback)
    assert lengths(callback.workload()) == [(2, 2, 2)] * 2


def test_a_validation_is_priced_too_and_leaves_no_hooks() -> None:
    callback, module = HardwareCost(["standard"]), student("bert", 3)
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, callbacks=[callback], enable_progress_bar=False
    )
    loader = torch.utils.data.DataLoader([zoo.text()], batch_size=None)
    trainer.validate(module, loader, verbose=False)
    assert callback.metrics["hw/standard/latency_us"] > 0
    assert not any(each._forward_pre_hooks for each in module.modules())


@pytest.mark.parametrize("accelerators", [[], ["standard"]])
def test_a_model_without_hamming_attention_costs_nothing(accelerators: list[str]) -> None:
    module = Student(zoo.build("bert"))
    assert evaluated(module, [zoo.text()], HardwareCost(accelerators)) == {}


def test_no_accelerators_no_figures() -> None:
    callback = HardwareCost([])
    assert evaluated(student("bert", 3), [zoo.text()], callback) == {}
    assert callback.workload() is None


def test_an_unknown_accelerator_is_refused_at_once() -> None:
    with pytest.raises(HadError, match="unknown accelerator 'camfomer'"):
        HardwareCost(["camfomer"])


def test_outputs_and_random_state_are_those_without_it() -> None:
    def end(*callbacks: pl.Callback) -> tuple[Tensor, Tensor]:
        module = student("bert", 3)
        torch.manual_seed(7)
        evaluated(module, [zoo.text() for _ in range(2)], *callbacks)
        state = torch.get_rng_state()
        return state, zoo.output(module.model, zoo.text())

    state, output = end()
    state_with, output_with = end(HardwareCost(["standard", "camformer"]))
    assert torch.equal(state, state_with)
    assert torch.equal(output, output_with)


def test_a_run_records_its_costs(tmp_path: Path) -> None:
    """5 tokens of an 8 x 8 image in patches of 4: the record holds their price."""
    run(tiny(tmp_path, "hardware.accelerators=[camformer,standard]"))
    record: dict[str, Any] = json.loads((tmp_path / "run" / "metrics.json").read_text())
    workload = ModelGeometry(layers=2, heads=4, head_dim=4).workload(5, 2)
    expected = cost_metrics(workload, ["camformer", "standard"])
    costs = {name: value for name, value in record.items() if name.startswith("hw/")}
    assert costs == pytest.approx(expected)


def test_a_run_without_hardware_records_none(tmp_path: Path) -> None:
    metrics = run(tiny(tmp_path, "hardware=none"))
    assert not any(name.startswith("hw/") for name in metrics)
    assert "score/student" in metrics
