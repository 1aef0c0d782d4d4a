"""Settings, versions and devices: what the runs have in common, and what not."""

from __future__ import annotations

from collections.abc import Sequence

from had.results.comparison import ABSENT, settings_of, text_of, version_settings
from had.results.report.elements import Element, Section, Table, Text
from had.results.report.runs import Group, Run


def settings(runs: Sequence[Run], groups: Sequence[Group]) -> Section:
    """Differing settings, common settings, and on what each run was made."""
    elements: list[Element] = []
    configured = [group for group in groups if group.runs[0].config]
    if configured:
        elements += _settings(configured)
    if missing := sum(run.directory is None for run in runs):
        elements.append(
            Text(f"{missing} of {len(runs)} runs are records alone: their settings are not known.")
        )
    return Section("settings", "Settings and versions", [*elements, _versions(runs)])


def _settings(groups: Sequence[Group]) -> list[Element]:
    found = [settings_of(group.runs[0].config) for group in groups]
    keys = list(dict.fromkeys(key for each in found for key in each))
    keys = [key for key in keys if key != "seed"]
    rows = {key: [each.get(key, ABSENT) for each in found] for key in keys}
    differing = {key: row for key, row in rows.items() if any(v != row[0] for v in row)}
    elements: list[Element] = []
    if differing:
        cells = [[key, *map(text_of, row)] for key, row in differing.items()]
        headers = ["setting", *(group.name for group in groups)]
        elements.append(Table(headers, cells, "Settings that differ; - where one has no such key."))
    common = [[key, text_of(row[0])] for key, row in rows.items() if key not in differing]
    title = "Settings that all have in common" if len(groups) > 1 else "All settings"
    text = "Of the first seed, without what only decides where a run goes and what it shows."
    elements.append(Table(["setting", "value"], common, text, folded=title))
    return elements


def _versions(runs: Sequence[Run]) -> Table:
    """A row for every environment that runs were made in."""
    found: dict[tuple[tuple[str, str], ...], int] = {}
    for run in runs:
        environment = tuple((k, text_of(v)) for k, v in version_settings(run.record).items())
        found[environment] = found.get(environment, 0) + 1
    keys = list(dict.fromkeys(key for environment in found for key, _ in environment))
    rows = [
        [key.removeprefix("packages."), *(dict(each).get(key, text_of(ABSENT)) for each in found)]
        for key in keys
    ]
    headers = ["", *(f"{count} of {len(runs)} runs" for count in found.values())]
    return Table(headers, rows, "Versions, commit and device.")
