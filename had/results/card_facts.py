"""What a model card knows of a student, and the header that the Hub reads."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

UNKNOWN = "unknown"  # an identifier of the Hub, too
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Facts:
    """Everything a card is made of.

    Attributes:
        name: of the student.
        base: the class that it extends.
        auto: the Auto class that loads it.
        pipeline: what the Hub calls what it is for.
        packages: that it needs.
        settings: of its attention.
        layers: attention layers.
        parameters: number of weights.
        files: names of what lies beside the card.
        licence: of the weights it was made from, as the Hub names it.
        own: the record of the run that made it; None without one.
        records: all records to be shown.
        config: the run's configuration, empty without one.
        accelerators: what each is, by name.
    """

    name: str
    base: str
    auto: str
    pipeline: str
    packages: Sequence[str]
    settings: Mapping[str, Any]
    layers: int
    parameters: int
    files: Collection[str] = ()
    licence: str = UNKNOWN
    own: Mapping[str, Any] | None = None
    records: Sequence[dict[str, Any]] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    accelerators: Mapping[str, str] = field(default_factory=dict)

    @property
    def task(self) -> Mapping[str, Any]:
        """The run's task; empty without a configuration."""
        return self.config.get("task") or {}

    @property
    def base_model(self) -> str | None:
        """The weights it was made from: their id on the Hub, or the last part of their path."""
        model = self.config.get("model") or {}
        place = self.config.get("teacher") or model.get("name")
        if place is None or not model.get("pretrained", True):
            return None
        return str(place) if hub_id(place) else str(place).rstrip("/").rpartition("/")[2]


def hub_id(name: object) -> str | None:
    """The name, if it has the form of an id on the Hub with its organisation."""
    return str(name) if _HUB_ID.fullmatch(str(name or "")) else None


def header(facts: Facts) -> str:
    """The YAML header: metadata and, where there is a record, a model index."""
    content: dict[str, Any] = {
        "library_name": "transformers",
        "license": facts.licence,
        "pipeline_tag": facts.pipeline,
        "tags": ["hamming-attention", "binary-attention", "distillation", "custom_code"],
    }
    if base := hub_id(facts.base_model):
        content["base_model"] = base
    if dataset := hub_id(facts.task.get("hub")):
        content["datasets"] = [dataset]
    if facts.own is not None:
        content["model-index"] = [{"name": facts.name, "results": [_result(facts, facts.own)]}]
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---\n"


def _result(facts: Facts, record: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of these very weights, not those of other seeds."""
    task = str(record["task"])
    dataset: dict[str, Any] = {"name": task, "type": hub_id(facts.task.get("hub")) or task}
    for theirs, ours in (("config", "hub_subset"), ("split", "hub_dev")):
        if facts.task.get(ours) and not facts.task.get("split"):  # a split of ours is not theirs
            dataset[theirs] = facts.task[ours]
    measured = scores(record, "teacher")  # what only the student has compares it to the teacher
    metrics = [
        {"type": name.rpartition("/")[2], "name": name, "value": value}
        for name, value in scores(record, "student").items()
        if name in measured
    ]
    return {"task": {"type": facts.pipeline}, "dataset": dataset, "metrics": metrics}


def scores(record: Mapping[str, Any], role: str) -> dict[str, float]:
    """The metrics of the teacher or the student by their names."""
    prefix = f"{role}/"
    return {key.removeprefix(prefix): record[key] for key in record if key.startswith(prefix)}
