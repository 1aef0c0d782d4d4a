"""Fine-tuned teachers, kept under a hash of everything that determines them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from had.models.family import family_of
from had.models.source import ModelSource
from had.tasks.base import EncodedDataset, Task

log = logging.getLogger(__name__)

_FORMAT = 1  # raise when fine-tuning itself changes, so that older teachers are not reused


class TeacherCache:
    """Finished teachers as directories `<cache>/teachers/<hash>`.

    Args:
        cache: the cache directory, `paths.cache`.
        fingerprint: hash of what determines the teacher, from `teacher_fingerprint`.
    """

    def __init__(self, cache: Path, fingerprint: str) -> None:
        self.directory = cache.expanduser() / "teachers" / fingerprint

    def load(self, source: ModelSource, task: Task) -> nn.Module | None:
        """The cached teacher, or None; a hit is said in the log."""
        if not (self.directory / "model.safetensors").is_file():
            return None
        log.info("teacher: fine-tuned before on the same data, reused from %s", self.directory)
        return source.at(str(self.directory)).build(
            task.num_outputs, task.label_names, head=task.head, complete=True
        )

    def store(self, model: nn.Module, settings: Mapping[str, Any]) -> None:
        """Keep a fine-tuned model; it appears whole or not at all.

        Jobs of a sweep may make the same teacher at the same time: the first one's is kept.
        """
        own = f"{socket.gethostname()}-{os.getpid()}"
        partial = self.directory.with_name(f"{self.directory.name}.{own}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        family_of(model).save(model, partial, {})
        (partial / "settings.json").write_text(
            json.dumps(settings, indent=2, sort_keys=True) + "\n"
        )
        try:
            partial.rename(self.directory)
        except OSError:  # there is one
            shutil.rmtree(partial)
        log.info("teacher: kept in %s", self.directory)


def teacher_fingerprint(settings: Mapping[str, Any], data: EncodedDataset, model: nn.Module) -> str:
    """Hash of the settings, the encoded training data and the initial weights.

    Args:
        settings: plain values: the schedule, batch size, seed, precision.
        data: the training examples as the model will see them.
        model: the model before fine-tuning, on the CPU.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps({"format": _FORMAT, **settings}, sort_keys=True).encode())
    for name, tensor in [
        *data.inputs.items(),
        ("labels", data.labels),
        *model.state_dict().items(),
    ]:
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(_bytes(tensor).data)
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
