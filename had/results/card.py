"""The model card of an exported student, made from the records of runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from had.results.card_facts import UNKNOWN, Facts, header, hub_id, scores
from had.results.formats import markdown
from had.results.shown import tables
from had.results.tables import cost_rows

_WARNING = """\
> **Loaded with plain classes this is another model.** `{base}.from_pretrained` and whatever else
> ignores `modeling_had.py` give these weights dense softmax attention, and say nothing: the results
> are wrong. Use `{auto}` with `trust_remote_code=True`."""

_CALLS = {
    "image-classification": "logits = model({inputs}).logits  # (B, classes)",
    "text-generation": "tokens = model.generate({inputs}, max_new_tokens=50)",
    "text2text-generation": "tokens = model.generate({inputs}, max_new_tokens=50)",
}
_CALL_OTHERS = "outputs = model({inputs})"
_READERS = {  # of a file beside the card: who reads it, as what, and the model's inputs then
    "preprocessor_config.json": (
        "AutoImageProcessor",
        "processor",
        "**processor(image, {tensors})",
    ),
    "tokenizer_config.json": ("AutoTokenizer", "tokenizer", '**tokenizer("A text.", {tensors})'),
}
_NO_READER = ("", "", "**inputs")
_TENSORS = 'return_tensors="pt"'

_LOAD_NOTE = """\
It needs {packages}, nothing else. The code is for inference: it keeps keys in floating point and
computes exact top-N attention in plain PyTorch, which shows what the student answers, not how fast
hardware made for it would be. Signs pass no gradient: training is the framework's part."""

_ATTENTION = """\
    m_ts = equal bits of query t and key s
    s_ts = scale * sigma_q * sigma_k * (2 m_ts - head_dim)
    o_t  = sum over the N best keys of softmax(s_t) * v_s"""

_SCALES = {
    "frozen_sigma": "one a layer, the mean of std(x) over calibration batches, frozen",
    "head_scale": "one a head, learned",
    "mean_abs": "the mean of abs(x) of each sample and head, measured at run time",
}

_COST_NOTE = """\
Estimates of an analytic model, not measurements. Attention alone is priced (scores, selection,
softmax, weighted sum; no projections), for the mean sample of the evaluation: real tokens without
padding, keys that rows really kept, one-bit queries and keys where the design has them, 16-bit
values. A query is one row of one layer with all its heads; latency is that of one sample. On chip
leaves DRAM out. Ratios are to `{baseline}`, below 1 is better."""

_CITATION = """\
@misc{horton2025had,
  title         = {Hamming Attention Distillation: Binarizing Keys and Queries for Efficient
                   Long-Context Transformers},
  author        = {Mark Horton and Tergel Molom-Ochir and Peter Liu and Bhavna Gopal and Chiyue Wei
                   and Cong Guo and Brady Taylor and Deliang Fan and Shan X. Wang and Hai Li and
                   Yiran Chen},
  year          = {2025},
  eprint        = {2502.01770},
  archivePrefix = {arXiv}
}"""


def card(facts: Facts) -> str:
    """The whole of README.md."""
    sections = {
        "Loading it": _loading(facts),
        "Its attention": _attention(facts),
        "Scores": _scores(facts),
        "Training": _training(facts),
        "Cost in silicon": _cost(facts),
        "Versions": _versions(facts),
        "Licence": _licence(facts),
        "Citation": f"The method is that of\n\n```bibtex\n{_CITATION}\n```",
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items() if text)
    return f"{header(facts)}\n# {facts.name}\n\n{_opening(facts)}\n\n{body}\n"


def _opening(facts: Facts) -> str:
    made_for = f" for {facts.own['task']}" if facts.own else ""
    width = "one-bit" if facts.settings["relaxation"] == "sign" else "full-precision"
    what = (
        f"A `{facts.base}`{made_for} whose attention has {width} queries and keys and in "
        f"every row sees {_kept(facts.settings)}: a student of Hamming Attention Distillation "
        "([arXiv 2502.01770](https://arxiv.org/abs/2502.01770))."
    )
    return f"{what}\n\n{_WARNING.format(base=facts.base, auto=facts.auto)}"


def _loading(facts: Facts) -> str:
    found = [reader for file, reader in _READERS.items() if file in facts.files]
    reader, variable, inputs = found[0] if found else _NO_READER
    imports = sorted(filter(None, [reader, facts.auto]))
    lines = [f"from transformers import {', '.join(imports)}", ""]
    for kind, name in ((reader, variable), (facts.auto, "model")):
        if kind:
            call = f'{kind}.from_pretrained("{facts.name}", trust_remote_code=True)'
            lines.append(f"{name} = {call}")
    call = _CALLS.get(facts.pipeline, _CALL_OTHERS)
    code = "\n".join([*lines, call.format(inputs=inputs.format(tensors=_TENSORS))])
    note = _LOAD_NOTE.format(packages=", ".join(facts.packages))
    return f"```python\n{code}\n```\n\n{note}"


def _attention(facts: Facts) -> str:
    settings = facts.settings
    rows = [
        ["attention layers", str(facts.layers)],
        ["keys that a row keeps", _kept(settings)],
        ["queries and keys", "one bit" if settings["relaxation"] == "sign" else "full precision"],
        ["sigma", _SCALES[settings["scale"]]],
        ["weights of the kept keys", settings["weights"]],
        ["parameters", f"{facts.parameters:,}"],
    ]
    return f"{_ATTENTION}\n\n{_table(rows)}"


def _kept(settings: Mapping[str, Any]) -> str:
    n, minimum = settings["n"], settings["minimum"]
    if isinstance(n, int):
        return f"the {n} best keys"
    if n == 1:
        return "all keys"
    return f"the best {100 * n:g} % of the keys" + (f", {minimum} at least" if minimum > 1 else "")


def _scores(facts: Facts) -> str:
    if not facts.records:
        return "No record of a run was given: nothing is known of its scores."
    shown = tables("task", facts.records)
    parts = [part for table in shown for part in (markdown(table.rows), table.caption)]
    if facts.own is not None:
        parts += [f"These weights are those of seed {facts.own['seed']}:", _own_scores(facts.own)]
    return "\n\n".join(parts)


def _own_scores(record: Mapping[str, Any]) -> str:
    teacher, student = scores(record, "teacher"), scores(record, "student")
    rows = [[name, _number(teacher.get(name)), _number(student[name])] for name in student]
    return markdown((["metric", "teacher", "student"], rows))


def _training(facts: Facts) -> str:
    config, record = facts.config, facts.own
    if record is None:
        return ""
    rows = [
        ["data", str(record["task"]) + _source(facts)],
        ["model", str(record["model"]) + _made_from(facts)],
        ["teacher", _teacher(config)],
        ["recipe", f"`{record['binarization']}`"],
        ["schedule", f"`{record['schedule']}`{_stages(config)}"],
        ["batch size", str(facts.task.get("batch_size", ""))],
        ["seed", str(record["seed"])],
        ["further settings", ", ".join(f"`{each}`" for each in record.get("overrides", ()))],
    ]
    return _table([row for row in rows if row[1]])


def _source(facts: Facts) -> str:
    subset = facts.task.get("hub_subset")
    place = hub_id(facts.task.get("hub"))
    return f" ({place}{f', {subset}' if subset else ''}, or the same official files)" * bool(place)


def _made_from(facts: Facts) -> str:
    if facts.base_model:
        return f" ({facts.base_model})"
    return " (from random weights)" if facts.config.get("model") else ""


def _teacher(config: Mapping[str, Any]) -> str:
    if "teacher" not in config:
        return ""
    if config["teacher"]:
        return "a model fine-tuned before, in full precision"
    return "the model itself, fine-tuned on the data in full precision first"


def _stages(config: Mapping[str, Any]) -> str:
    schedule = config.get("schedule") or {}
    stages = [f"{each['name']} {100 * each['share']:g} %" for each in schedule.get("stages") or ()]
    if not stages:
        return ""
    epochs = schedule["epochs"] * schedule.get("epochs_factor", 1)
    rate = schedule["learning_rate"] * schedule.get("learning_rate_factor", 1)
    return f": {', '.join(stages)} of {epochs:g} epochs; learning rate {rate:g} at its peak"


def _cost(facts: Facts) -> str:
    headers, rows = cost_rows(facts.own or {})
    if not rows:
        return ""
    hardware = facts.config.get("hardware") or {}
    note = _COST_NOTE.format(baseline=hardware.get("baseline", "standard"))
    named = [(row[0], facts.accelerators.get(row[0])) for row in rows]
    what = [f"- `{name}`: {title}" for name, title in named if title]
    return "\n\n".join(filter(None, [markdown((headers, rows)), note, "\n".join(what)]))


def _versions(facts: Facts) -> str:
    if facts.own is None:
        return ""
    return _table(list(_environment(facts.own)))


def _environment(record: Mapping[str, Any]) -> Iterator[list[str]]:
    for name in ("had", "commit", "python", "device"):
        if record.get(name):
            yield [name, str(record[name])]
    for name, version in (record.get("packages") or {}).items():
        if version:
            yield [name, str(version)]


def _licence(facts: Facts) -> str:
    whose = "of these weights"
    if facts.base_model:
        whose = f"of the weights it was made from ({facts.base_model})"
    if facts.licence == UNKNOWN:
        return f"The licence {whose} is not known here: find it out before you use or share this."
    return f"The licence {whose}: {facts.licence}. The data may have terms of their own."


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _table(rows: list[list[str]]) -> str:
    return markdown((["", ""], rows))
