"""Learning curves from the CSV logs of a run directory."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

Curve = dict[int, float]
"""Values by step, in the order of steps."""
Curves = Mapping[str, Curve]

_CURVES = ("train/", "val/", "finetune/")  # other columns are results, logged once


def read_curves(directory: Path) -> dict[str, Curve]:
    """All curves by name.

    A run that was interrupted leaves a log for each of its parts; where they overlap, the later
    part counts.
    """
    points: dict[str, Curve] = {}
    for file in sorted(directory.glob("*/version_*/metrics.csv"), key=_version):
        with file.open(newline="") as opened:
            for row in csv.DictReader(opened):
                _add(points, row)
    return {name: dict(sorted(curve.items())) for name, curve in points.items()}


def _version(file: Path) -> int:
    number = file.parent.name.rpartition("_")[2]
    return int(number) if number.isdecimal() else -1


def _add(points: dict[str, Curve], row: Mapping[str, str]) -> None:
    for name, text in row.items():
        if text and name.startswith(_CURVES):
            points.setdefault(name, {})[int(row["step"])] = float(text)


def stage_starts(curves: Curves) -> dict[int, int]:
    """The first step of each stage by its number; empty if the run has not logged stages."""
    starts: dict[int, int] = {}
    for step, stage in curves.get("train/stage", {}).items():
        starts.setdefault(int(stage), step)
    return starts
