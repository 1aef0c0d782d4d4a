"""`had cost`: what the attention of a model would cost on accelerators; nothing is trained."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hydra._internal.utils import get_args_parser

from had.commands.cost_output import Answer, draw, show_json, show_tables
from had.commands.pricing import Appraiser, Pricing, Wishes
from had.config.preflight import preflight
from had.config.wording import numbered
from had.errors import HadError
from had.hardware.cost import SweepAxis, compare, evaluate, parse_sweep, sweep
from had.hardware.spec import available
from had.paths import CONFIG_NAME, hydra_config_path

METRICS = "metrics.json"
EXAMPLES = """\
examples:
  had cost model=bert task=glue/sst2 hardware=camformer
  had cost model=bert task=glue/sst2 --compare standard,had_digital,had_cam,camformer
  had cost model=bert task=glue/sst2 --sweep n=128..65536 --sweep topn=8..512 --plots plots
  had cost model=transformers model.name=path/to/model task=glue/sst2 --context 4096 --json

Every query is priced on the whole context. had train counts the real, unpadded lengths."""

Input = TypeVar("Input")
Output = TypeVar("Output")


def main(argv: Sequence[str]) -> int:
    """`had cost [OVERRIDE ...]`; returns the exit status.

    Raises:
        HadError: everything that is wrong with the command line, or a plot cannot be drawn.
    """
    arguments = _parser().parse_intermixed_args(argv)
    problems: list[str] = []
    axes = _tried(parse_sweep, arguments.sweep, problems)
    records = [record for found in _tried(_read, arguments.records, problems) for record in found]
    if arguments.records and not arguments.plots:
        problems.append("--records are only drawn: add --plots DIR")
    pricing = _priced(arguments, problems)
    if problems or pricing is None:
        raise HadError(numbered(problems))
    answer = _answer(pricing, axes)
    if arguments.plots:
        answer.plots = draw(answer, records, arguments.plots)
    arguments.show(answer)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="had cost",
        description="What attention would cost on accelerators; needs no data and no weights.",
        epilog=f"accelerators: {', '.join(available())}, or the path of a YAML\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("overrides", nargs="*", metavar="OVERRIDE", help="of the configuration, as for had train")
    add("--compare", type=_names, default=(), metavar="NAMES", help="accelerators, with commas")
    axis = "n=128..65536 (context, doubling) or topn=8,16,30 (keys kept); may be repeated"
    add("--sweep", action="append", default=[], metavar="AXIS", help=axis)
    add("--context", type=_count, metavar="N", help="keys, in place of the task's max_length")
    add("--query-length", type=_count, metavar="N", help="query rows; 1 is one decoding step")
    add("--plots", type=Path, metavar="DIR", help="draw PNG and SVG files there")
    runs = "run directories or JSON files: draw accuracy against energy; comes last"
    add("--records", type=Path, nargs="+", default=[], metavar="RUN", help=runs)
    add("--config-dir", metavar="DIR", help="a further directory of configuration")
    add(
        "--json",
        dest="show",
        action="store_const",
        const=show_json,
        default=show_tables,
        help="write JSON and nothing else",
    )
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of 1 or more")
    return int(text)


def _tried(
    read: Callable[[Input], Output], inputs: Iterable[Input], problems: list[str]
) -> list[Output]:
    """What could be read of the inputs; the others become problems."""
    results = []
    for one in inputs:
        try:
            results.append(read(one))
        except HadError as error:
            problems.append(str(error))
    return results


def _read(place: Path) -> list[dict[str, Any]]:
    """The records of a run directory, or of a JSON file that holds one or a list of them.

    Raises:
        HadError: There is nothing of that kind.
    """
    file = place / METRICS if place.is_dir() else place
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise HadError(
            f"--records {place}: no run directory or JSON file (overrides go before --records)"
        ) from error
    except ValueError as error:
        raise HadError(f"--records {place}: {file} is not JSON ({error})") from error
    found = content if isinstance(content, list) else [content]
    if not all(isinstance(record, dict) for record in found):
        raise HadError(f"--records {place}: {file} holds something that is no record")
    return found


def _priced(arguments: argparse.Namespace, problems: list[str]) -> Pricing | None:
    """What is to be priced; None, and more problems, if that cannot be told."""
    stated = any(text.lstrip("+").startswith("model.geometry") for text in arguments.overrides)
    appraiser = Appraiser(
        Wishes(arguments.compare, arguments.context, arguments.query_length, stated)
    )
    hydra = get_args_parser().parse_args(arguments.overrides)
    hydra.config_dir = arguments.config_dir
    problems += preflight(hydra, hydra_config_path(), CONFIG_NAME, appraiser)
    return appraiser.pricing


def _answer(pricing: Pricing, axes: Sequence[SweepAxis]) -> Answer:
    workload = pricing.case.workload()
    return Answer(
        pricing,
        baseline=evaluate(workload, pricing.baseline),
        reports=compare(workload, pricing.accelerators),
        sweeps=[sweep(pricing.case, axis, pricing.accelerators) for axis in axes],
    )
