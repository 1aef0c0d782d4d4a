"""The arguments of `had sweep`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import yaml

from had.sweeps.files import is_sweep_file
from had.sweeps.launchers import LAUNCHERS

_DESCRIPTION = """Whole tables of runs, on several workers, continued wherever they stopped.

Points come from a sweep file of Weights & Biases (grid, random or bayes; no server is asked), from
an experiment's grid, or from the command line; what it sets replaces what the others say."""

_EXAMPLES = """examples:
  had sweep experiment=glue/headline seed=0 --records results/glue
  had sweep sweeps/glue_topn.yaml task=glue/rte --records results/mine --workers 2
  had sweep sweeps/schedule_bayes.yaml --points 30 --records results/shares
  had sweep sweeps/glue_topn.yaml --records results/mine --launcher slurm --workers 8 \\
    --job slurm_partition=gpu --job gpus_per_node=1"""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; `file` is the sweep file or None, `overrides` are the others of `what`.

    Raises:
        SystemExit: they make no sense; the user has been told.
    """
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    files = [each for each in arguments.what if is_sweep_file(each)]
    arguments.overrides = [each for each in arguments.what if each not in files]
    arguments.file = Path(files[0]) if files else None
    if not arguments.what:
        parser.error("nothing to run: give FILE.yaml, experiment=NAME or key=value,value")
    if len(files) > 1:
        parser.error(f"one sweep file at a time, not {', '.join(files)}")
    if arguments.records is None:
        if not arguments.dry_run:
            parser.error("the following arguments are required: --records/-o")
        arguments.records = arguments.runs / "records"  # nothing is written
    if arguments.devices and arguments.launcher != "local":
        parser.error("--devices goes with --launcher local: others place their jobs themselves")
    if arguments.job and arguments.launcher != "slurm":
        parser.error("--job goes with --launcher slurm")
    arguments.job = dict(arguments.job)
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="had sweep",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "what",
        nargs="*",
        metavar="FILE.yaml | experiment=NAME,... | key=value,value",
        help="what to run; as train.py -m, and a sweep file may come first",
    )
    parser.add_argument(
        *("--records", "-o"), type=Path, metavar="DIR", help="folder of records (required)"
    )
    parser.add_argument("--workers", type=_count, default=1, metavar="K", help="processes (1)")
    parser.add_argument(
        "--devices", type=_names, default=(), metavar="0,1", help="GPUs to deal out to the workers"
    )
    parser.add_argument(
        *("--runs",),
        type=Path,
        default=Path("outputs/sweep"),
        metavar="DIR",
        help="run directories and the workers' logs (outputs/sweep)",
    )
    parser.add_argument(
        *("--keep-students",),
        action="store_true",
        help="keep checkpoints and weights of recorded points, too",
    )
    parser.add_argument("--dry-run", action="store_true", help="list the points, run nothing")
    _add_search(parser)
    _add_launcher(parser)
    return parser


def _add_search(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("random and bayes")
    group.add_argument(
        "--points",
        type=_count,
        metavar="N",
        help="combinations to try (the file's run_cap, or 20)",
    )
    group.add_argument(
        *("--search-seed",), type=int, default=0, metavar="S", help="of what is drawn (0)"
    )


def _add_launcher(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("beyond the workers of this machine")
    group.add_argument(
        *("--launcher",),
        choices=sorted(LAUNCHERS),
        default="local",
        help="who runs the points (local); --workers is the number of jobs at a time",
    )
    group.add_argument(
        *("--job",),
        type=_option,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of submitit's executor: slurm_partition=gpu, timeout_min=600, gpus_per_node=1",
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 or more")
    return int(text)


def _names(text: str) -> list[str]:
    return text.split(",")


def _option(text: str) -> tuple[str, object]:
    key, found, value = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"{text}: must be KEY=VALUE")
    return key, yaml.safe_load(value)
