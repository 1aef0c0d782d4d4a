"""The command line: `had <command>`, and what train.py runs.

Imports nothing heavy: `--help`, `--cfg job` and tab completion answer at once.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from had.config import register
from had.config.composing import Composer, further_settings
from had.config.wording import nearest, numbered
from had.errors import HadError
from had.lean_imports import lean_imports
from had.paths import CONFIG_NAME, hydra_config_path

log = logging.getLogger(__name__)

COMPLETION = "--completion"
USER_ERROR = 2
SIGNALLED = 128  # plus the signal's number, as shells count


@dataclass(frozen=True)
class Command:
    """A subcommand of `had`.

    Attributes:
        target: "module:function"; the function takes the remaining arguments, returns the exit
            status and is imported only when the command is used.
        help: one line.
        overrides: whether it takes overrides of the configuration, which Tab then completes.
    """

    target: str
    help: str
    overrides: bool = False

    def load(self) -> Callable[[Sequence[str]], int]:
        module, function = self.target.split(":")
        with lean_imports():
            return getattr(importlib.import_module(module), function)


COMMANDS = {
    "train": Command("had.cli:train", "distil a model on a task (same as train.py)", True),
    "eval": Command("had.cli:evaluate", "evaluate the student of a run directory again"),
    "sweep": Command("had.commands.sweep:main", "run experiments and sweep files: many runs", True),
    "generate": Command("had.commands.generate:main", "let a language-model student write"),
    "results": Command("had.commands.results:main", "tables from the records of runs"),
    "attention-maps": Command(
        "had.commands.attention_maps:main", "draw what teacher and student look at in an image"
    ),
    "export": Command("had.commands.export:main", "a student that runs without HAD, with its card"),
    "report": Command("had.commands.report:main", "runs as one page, HTML and Markdown"),
    "compare": Command("had.commands.compare:main", "what differs between two runs"),
    "cost": Command(
        "had.commands.cost:main", "price attention on accelerators; needs no data", True
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The console script `had`; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    name = arguments[0] if arguments else "--help"
    if name in ("--help", "-h"):
        sys.stdout.write(_overview())
        return 0
    if name not in (*COMMANDS, COMPLETION):
        return _complain(f"had {name}: no such command{nearest(name, COMMANDS)}\n\n{_overview()}")
    try:
        if name == COMPLETION:
            return _completion(arguments[1:])
        return COMMANDS[name].load()(arguments[1:])
    except HadError as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        return SIGNALLED + SIGINT


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    further = ["had <command> --help", 'eval "$(had --completion bash)"  # or zsh: the Tab key']
    return "\n".join(["usage: had <command> ...", "", *lines, "", *further, ""])


def _completion(argv: Sequence[str]) -> int:
    from had.commands.completion import main as complete

    return complete(argv, COMMANDS)


def _complain(message: str) -> int:
    sys.stderr.write(message.rstrip() + "\n")
    return USER_ERROR


def evaluate(argv: Sequence[str]) -> int:
    """`had eval RUN_DIR [KEY=VALUE,...]`."""
    parser = argparse.ArgumentParser(prog="had eval", description=COMMANDS["eval"].help)
    add = parser.add_argument
    add("run_dir", type=Path, help="a directory that had train has written")
    changed = "sparsity.n=16,64 task.context=512,1024: student and teacher at every combination"
    add("changes", nargs="*", metavar="KEY=VALUE,...", help=changed)
    add("--records", type=Path, metavar="DIR", help="folder that gets a record of each of these")
    arguments = parser.parse_intermixed_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with lean_imports():
        from had.evaluation import evaluate_points, evaluate_run

    if not arguments.changes and arguments.records is None:
        evaluate_run(arguments.run_dir)
        return 0

    for _ in evaluate_points(arguments.run_dir, arguments.changes, arguments.records):
        pass  # each shows its own table
    return 0


def train(argv: Sequence[str], config_path: str | None = None) -> int:
    """`had train` and train.py: Hydra's command line, after a look at all that could be wrong.

    Args:
        argv: overrides and Hydra's own flags.
        config_path: a directory or "pkg://..."; None for the configuration of this package.
    """
    register()
    path = config_path or hydra_config_path()
    job = _Job(sys.argv)
    answer = hydra.main(version_base="1.3", config_path=path, config_name=CONFIG_NAME)(job)
    args = get_args_parser().parse_args(argv)
    sys.argv = [sys.argv[0], *argv]  # the only place where hydra.main looks
    try:
        problems = answer() if _asks_hydra(args) else _started(args, path, job)
    except SystemExit as stop:
        return USER_ERROR if job.refused else int(stop.code or 0)
    finally:
        sys.argv = job.command_line
    return _complain(numbered(problems)) if problems else 0


def _asks_hydra(args: argparse.Namespace) -> bool:
    """Whether Hydra answers a command line itself, or refuses its flags."""
    answered = (args.help, args.hydra_help, args.cfg, args.info, args.shell_completion)
    refused = args.resolve or (args.run and args.multirun)
    return any(answered) or bool(args.experimental_rerun) or refused


def _started(args: argparse.Namespace, config_path: str, job: _Job) -> list[str]:
    """What is wrong with a command line; if nothing is, it has been run."""
    from had.config.preflight import preflight

    return preflight(args, config_path, CONFIG_NAME, then=job)


class _Job:
    """What Hydra calls for a run, or for every job of a sweep.

    Attributes:
        command_line: of this process; Lightning starts its further processes with the same.
        refused: whether a job ended by a `HadError`.
    """

    def __init__(self, command_line: list[str]) -> None:
        self.command_line = command_line
        self.refused = False

    def __call__(self, cfg: DictConfig) -> float | None:
        """Run, and return the student's score for sweepers that optimise.

        Raises:
            SystemExit: bad input (2), or a signal (128 and its number).
            CompactHydraException: bad input in a sweep, whose other jobs go on.
        """
        sys.argv = self.command_line
        with open_dict(cfg):
            cfg.run_dir = HydraConfig.get().runtime.output_dir  # a sweep numbers its own
            if cfg.resume is None and "SUBMITIT_EXECUTOR" in os.environ:
                cfg.resume = "auto"  # submitit starts a job again with the command it had
        with lean_imports():
            from had.lightning.fit import Interrupted
            from had.runner import run

        try:
            return run(cfg, overrides=_settings(cfg)).get("score/student")
        except HadError as error:
            self.refused = True
            log.error("%s", error)
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise CompactHydraException(str(error)) from error
            raise SystemExit(USER_ERROR) from error
        except Interrupted as stop:
            log.warning("%s; resume=%s continues", stop, cfg.run_dir)
            # Further processes end quietly: else their launcher kills the first one, which may
            # still be closing its loggers.
            raise SystemExit(SIGNALLED + stop.signal if stop.rank == 0 else 0) from None
        except KeyboardInterrupt:
            log.warning("interrupted")
            raise SystemExit(SIGNALLED + SIGINT) from None


def _settings(cfg: DictConfig) -> list[str]:
    """What the record of a job has to say beside its axes."""
    compose = Composer(GlobalHydra.instance().hydra)
    return further_settings(cfg, HydraConfig.get().runtime.choices, compose)


if __name__ == "__main__":
    sys.exit(main())
