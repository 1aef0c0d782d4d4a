"""Places for whole runs: where they find their input, and what they leave."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from had.cli import main
from tests.integration.command_line import overrides

DEV = 10  # sentences in the development sets, but MNLI's
LEARNING = ("task.epochs=12", "task.learning_rate=2e-3")  # enough for sentences with one clear word


@dataclass(frozen=True)
class Run:
    """A finished run, by what it left."""

    directory: Path

    @property
    def metrics(self) -> dict[str, float]:
        return json.loads((self.directory / "metrics.json").read_text())

    @property
    def results(self) -> dict[str, float]:
        """The metrics that a repetition must give again: all but times."""
        return {key: value for key, value in self.metrics.items() if not key.startswith("time/")}

    @property
    def log(self) -> str:
        return (self.directory / "train.log").read_text()

    @property
    def config(self) -> dict[str, Any]:
        """config.json of the student."""
        return json.loads((self.directory / "student" / "config.json").read_text())

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return load_file(self.directory / "student" / "model.safetensors")

    def checkpoints(self, phase: str) -> list[str]:
        return sorted(file.name for file in (self.directory / "checkpoints" / phase).glob("*"))


@dataclass(frozen=True)
class Place:
    """Where the runs of this module find their input and leave their results."""

    root: Path
    base: Path
    teacher: Path
    data: Path

    def arguments(self, name: str, *given: str) -> list[str]:
        return overrides(
            *(f"model.name={self.base}", f"paths.data={self.data}", f"paths.cache={self.cache}"),
            *(f"run_dir={self.root / name}", *given),
        )

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def run(self, name: str, *given: str) -> Run:
        assert main(["train", *self.arguments(name, *given)]) == 0
        return Run(self.root / name)


def predictions(model: torch.nn.Module, folder: Path, *texts: list[str]) -> torch.Tensor:
    """Logits, a sentence at a time, so that nothing depends on padding."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        rows = [model(**tokenizer(*row, return_tensors="pt")).logits[0] for row in zip(*texts)]  # noqa: B905
    return torch.stack(rows)
