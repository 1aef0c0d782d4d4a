"""Steps and examples a second, by a clock that the test turns itself."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from had.lightning.callbacks import throughput
from had.lightning.callbacks.throughput import Throughput

WARM = throughput._WARM


def train(
    monkeypatch: pytest.MonkeyPatch, borders: list[int], slow: set[int], wait: float = 0.0
) -> Throughput:
    """Run to the last border; a step takes 0.1 s, or 10 s where it is slow.

    Two processes share 8 examples a step; `wait` of each step's time passes before its batch comes.
    """
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(throughput, "_now", lambda: clock.now)
    monkeypatch.setattr(throughput, "_clock", lambda: clock.now)
    callback, trainer = Throughput(), SimpleNamespace(global_step=0, world_size=2)
    batch = {"labels": [0] * 4}
    module = SimpleNamespace(schedule=SimpleNamespace(borders=borders))
    callback.on_train_start(trainer, module)
    for step in range(1, borders[-1] + 1):
        clock.now += wait
        callback.on_train_batch_start(trainer, module, batch, step)
        clock.now += 10.0 if step in slow else 0.1 - wait
        trainer.global_step = step
        callback.on_train_batch_end(trainer, module, None, batch, step)
    return callback


def test_the_first_steps_of_every_stage_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    borders = [100, 200]
    callback = train(monkeypatch, borders, slow={1, 2, WARM, 101, 100 + WARM})
    assert callback.steps == 2 * (100 - WARM)
    assert callback.metrics()["time/steps_per_s"] == pytest.approx(10.0)
    assert callback.metrics()["time/examples_per_s"] == pytest.approx(80.0)


def test_slow_steps_later_count(monkeypatch: pytest.MonkeyPatch) -> None:
    callback = train(monkeypatch, [100], slow={99})
    assert callback.seconds == pytest.approx(0.1 * (100 - WARM - 1) + 10.0)


def test_validation_is_not_training(monkeypatch: pytest.MonkeyPatch) -> None:
    callback = train(monkeypatch, [100], slow=set())
    before = callback.steps, callback.seconds
    callback.on_validation_start(SimpleNamespace(global_step=100), None)
    assert (callback.steps, callback.seconds) == before


def test_too_few_steps_give_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "time/steps_per_s" not in train(monkeypatch, [WARM], slow=set()).metrics()


def test_the_share_of_waiting_is_of_the_measured_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    callback = train(monkeypatch, [100, 200], slow={1, 101}, wait=0.03)
    assert callback.metrics()["time/waiting_for_data_share"] == pytest.approx(0.3)


def test_without_waiting_there_is_no_share_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(monkeypatch, [100], slow={99}).metrics()["time/waiting_for_data_share"] == 0
