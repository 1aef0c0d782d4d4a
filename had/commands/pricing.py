"""From a composed configuration to what `had cost` prices; reads no data, no weights, no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from had.config.limits import limits
from had.config.rules import head_widths, minimum_of_a_share, modality, room_for_exact_keys
from had.config.validate import refused_by_hardware
from had.config.values import Rule, Values, at
from had.errors import HadError
from had.hardware.cost import CostCase
from had.hardware.geometry import amend, read_config, read_geometry
from had.hardware.model import ModelGeometry

GROUPS = ("model", "task", "sparsity", "binarization", "hardware")
RULES: tuple[Rule, ...] = (
    limits,
    minimum_of_a_share,
    room_for_exact_keys,
    head_widths,
    modality,
)
WAYS_OUT = (
    "give model.name=<directory with config.json>, or "
    "+model.geometry={layers: 12, heads: 12, head_dim: 64}"
)


@dataclass(frozen=True)
class Wishes:
    """What the flags of the command line put in place of the configuration's own values.

    Attributes:
        accelerators: names or files; empty for those of hardware=.
        context: keys of a query, None for the task's or the model's.
        query_length: query rows, None for as many as keys.
        geometry_stated: whether an override speaks of model.geometry, which then beats files.
    """

    accelerators: tuple[str, ...] = ()
    context: int | None = None
    query_length: int | None = None
    geometry_stated: bool = False


@dataclass(frozen=True)
class Pricing:
    """What is to be priced.

    Attributes:
        model: label of the model.
        task: name of the task.
        case: the model at its operating point.
        accelerators: names or files.
        baseline: what ratios are taken to.
    """

    model: str
    task: str
    case: CostCase
    accelerators: tuple[str, ...]
    baseline: str


class Appraiser:
    """Judges a composed configuration for `had cost` as `had.config.validate` does for a run.

    Attributes:
        pricing: of the last configuration that had nothing wrong with it.
    """

    def __init__(self, wishes: Wishes) -> None:
        self.wishes = wishes
        self.pricing: Pricing | None = None

    def __call__(self, cfg: DictConfig) -> list[str]:
        """Everything that is wrong with a configuration, each in one sentence."""
        problems: list[str] = []
        values = _resolved(cfg, problems)
        hardware = values.get("hardware") or {}
        if self.wishes.accelerators:
            hardware = {**hardware, "accelerators": list(self.wishes.accelerators)}
        values["hardware"] = {"baseline": "standard", **hardware}
        for rule in (*RULES, refused_by_hardware, _nothing_to_price):
            problems += rule(values)
        unfit = any(problem.startswith("task.") for problem in problems)
        try:
            geometry = _geometry(values, self.wishes.geometry_stated)
            # A task that the model cannot read says nothing of the context.
            context = 0 if unfit else _context(values, geometry, self.wishes.context)
        except HadError as error:
            return [*problems, str(error)]
        if not problems:
            self.pricing = self._pricing(values, geometry, context)
        return problems

    def _pricing(self, values: Values, geometry: ModelGeometry, context: int) -> Pricing:
        model, task = values["model"]["label"], values["task"]["name"]
        n, minimum = values["sparsity"]["n"], values["sparsity"]["minimum"]
        rows = self.wishes.query_length
        exact = int(at(values, "binarization.recent") or 0)
        shape = f"{_layers(geometry)}, {geometry.heads} heads of {geometry.head_dim}"
        queries = "" if rows is None else f"{rows} queries on "
        kept = f"N = {n}" if minimum == 1 else f"N = {n} of the keys, {minimum} at least"
        name = f"{model} on {task}: {shape}, {queries}{context} keys, {kept}"
        target = at(values, "task.target_length")
        case = CostCase(
            replace(geometry, name=name),
            context,
            n,
            rows,
            minimum=minimum,
            target=target,
            exact=exact,
        )
        hardware = values["hardware"]
        return Pricing(model, task, case, tuple(hardware["accelerators"]), hardware["baseline"])


def _layers(geometry: ModelGeometry) -> str:
    if geometry.decoder_layers:
        return f"{geometry.layers} encoder and {geometry.decoder_layers} decoder layers"
    return f"{geometry.layers} layers"


def _resolved(cfg: DictConfig, problems: list[str]) -> Values:
    """The groups that count here as plain values; what is missing is "???", as in Hydra."""
    values: Values = {}
    for group in GROUPS:
        try:
            values[group] = OmegaConf.to_container(cfg[group], resolve=True) if cfg[group] else {}
        except OmegaConfBaseException as error:
            problems.append(f"{group}: {str(error).splitlines()[0]}")
            values[group] = {}
    return values


def _nothing_to_price(values: Values) -> Iterator[str]:
    if not at(values, "hardware.accelerators"):
        yield "hardware.accelerators is empty: choose hardware=<name>, or give --compare <names>"


def _geometry(values: Values, stated_first: bool) -> ModelGeometry:
    """The model's geometry: as an override states it, else from its directory, else from its YAML.

    Raises:
        HadError: There is none, or it is not valid.
    """
    model: dict[str, Any] = values["model"]
    stated, arguments = model.get("geometry"), model.get("arguments") or {}
    file = Path(str(model.get("name"))).expanduser() / "config.json"
    try:
        if file.is_file() and not (stated and stated_first):
            return read_config(file, arguments)
        if stated:
            return amend(read_geometry(stated), arguments)
    except HadError as error:
        raise HadError(f"model.geometry: {error}; {WAYS_OUT}") from error
    name = model.get("name", MISSING)
    found = "model.name has no value" if name == MISSING else f"model.name={name} is no directory"
    raise HadError(f"model.geometry is unknown and {found}: {WAYS_OUT}")


def _context(values: Values, geometry: ModelGeometry, wished: int | None) -> int:
    """Keys of a query: what was wished, the longest text of the task, or the tokens of an image.

    Raises:
        HadError: None of them is known, or the task's is not a positive integer.
    """
    known: Sequence[Any] = (
        *(wished, at(values, "task.max_length"), at(values, "task.context")),
        geometry.tokens,
    )
    context = next((one for one in known if one is not None), None)
    if context is None:
        raise HadError("task.max_length and model.geometry.tokens are unknown: give --context <n>")
    if not isinstance(context, int) or isinstance(context, bool) or context < 1:
        raise HadError(f"task.max_length={context!r} must be an integer of 1 or more")
    return context
