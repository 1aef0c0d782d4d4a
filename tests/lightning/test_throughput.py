"""Steps and examples a second, by a clock that the test turns itself."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from had.lightning.callbacks import gaps, throughput
from had.lightning.callbacks.throughput import Throughput

WARM = throughput._WARM


def train(
    monkeypatch: pytest.MonkeyPatch,
    borders: list[int],
    slow: set[int],
    wait: float = 0.0,
    validated: int | None = None,
) -> Throughput:
    """Run to the last border; a step takes 0.1 s, or 10 s where it is slow.

    Two processes share 8 examples a step; `wait` of each step's time passes before its batch comes.
    A validation of 7 s follows the step `validated`.
    """
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(throughput, "_now", lambda: clock.now)
    monkeypatch.setattr(gaps.time, "perf_counter", lambda: clock.now)
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
        if step == validated:
            callback.on_validation_start(trainer, module)
            clock.now += 7.0
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


def test_a_validation_is_no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    callback = train(monkeypatch, [100], slow=set(), validated=60)
    assert callback.seconds == pytest.approx(0.1 * (100 - WARM - 1))
    assert callback.waiting == 0


def test_too_few_steps_give_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "time/steps_per_s" not in train(monkeypatch, [WARM], slow=set()).metrics()


def test_the_share_of_waiting_is_of_the_measured_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    callback = train(monkeypatch, [100, 200], slow={1, 101}, wait=0.03)
    assert callback.metrics()["time/waiting_for_data_share"] == pytest.approx(0.3)


def test_without_waiting_there_is_no_share_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(monkeypatch, [100], slow={99}).metrics()["time/waiting_for_data_share"] == 0


def test_a_device_waits_by_its_own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events of a device that lags behind the host: a gap counts once both of its ends are past."""
    past: set[int] = set()
    times = iter([10.0, 14.0, 50.0, 51.0])  # milliseconds: two gaps of 4 and 1
    monkeypatch.setattr(gaps, "_now", lambda: FakeEvent(next(times), past))
    device = gaps.CudaGaps()
    device.end()  # no step has ended yet
    for _ in range(2):
        device.begin()
        device.end()
    assert device.seconds() == 0
    past.add(14)
    assert device.seconds() == pytest.approx(0.004)
    past.add(51)
    assert device.seconds() == pytest.approx(0.005)


class FakeEvent:
    """As `torch.cuda.Event`, past once its millisecond is."""

    def __init__(self, at: float, past: set[int]) -> None:
        self.at, self.past = at, past

    def query(self) -> bool:
        return int(self.at) in self.past

    def elapsed_time(self, other: FakeEvent) -> float:
        return other.at - self.at
