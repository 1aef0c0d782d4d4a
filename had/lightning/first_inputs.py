"""The first inputs of a phase on its device, for looking at a model outside of training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from torch import Tensor

from had.lightning.data import ShuffledBatches, evaluation_loader, training_loader
from had.lightning.phase import Phase
from had.lightning.trainer import device
from had.tasks.base import Batch

_LOOKED_AT = 4  # evaluation batches, of the size trained with: enough for means over their rows


def calibration_inputs(phase: Phase, count: int) -> Iterator[dict[str, Tensor]]:
    """Inputs of training batches, on the device; a second pass would show nothing new."""
    count = min(count, phase.batches_per_pass)
    batches = ShuffledBatches(
        phase.data.train,
        phase.task.batch_size,
        count,
        phase.cfg.seed,
        skipped=phase.schedule.curriculum_skip,
    )
    return _placed(phase, training_loader(batches))


def evaluation_inputs(phase: Phase) -> Iterator[dict[str, Tensor]]:
    """The first examples of the main evaluation set."""
    loader = evaluation_loader(next(iter(phase.data.evaluation.values())), phase.task.batch_size)
    return _placed(phase, islice(loader, _LOOKED_AT))


def _placed(phase: Phase, batches: Iterable[Batch]) -> Iterator[dict[str, Tensor]]:
    """The inputs of batches on the device, finished as in an evaluation."""
    place = device(phase.cfg)
    for batch in batches:
        inputs = {name: tensor.to(place) for name, tensor in batch["inputs"].items()}
        yield phase.data.on_device({**batch, "inputs": inputs})["inputs"]
