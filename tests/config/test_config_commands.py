"""The command line: all problems at once, the same program by two names, jobs and their ends."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from had import cli
from had.errors import HadError
from had.lightning.fit import Interrupted
from tests.forked import python

ROOT = Path(__file__).parents[2]
CONF = str(ROOT / "conf")


def run(*words: str, directory: Path = ROOT) -> subprocess.CompletedProcess[str]:
    with python(words, directory=directory) as process:
        return process.ended()


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """The numbered problems that a command line is refused with."""

    def lines(*arguments: str) -> list[str]:
        status = cli.train(list(arguments), CONF)
        captured = capsys.readouterr()
        assert (status, captured.out) == (2, "")
        first, *rest = captured.err.splitlines()
        assert first.endswith("in the configuration; nothing was started:")
        return [line.partition(". ")[2] for line in rest]

    return lines


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("task=glue/sst3",), "task=glue/sst3: no such task; did you mean glue/sst2? (there are c"),
        (("model=bret",), "model=bret: no such model; did you mean bert? (there are bert, "),
        (
            ("schedule@finetune=fintune",),
            "schedule@finetune=fintune: no such schedule; did you mean finetune? (",
        ),
        (("task.lerning_rate=1",), "task has no lerning_rate; did you mean learning_rate?"),
        (("experiment=digits_topn",), "no such experiment; did you mean digits_topn8? (there are"),
        (("modle=bert",), "modle=bert: no such key: there is no modle; did you mean model?"),
        (("sparsity.m=3",), "sparsity.m=3: no such key: sparsity has no m; known: n, minimum"),
        (("trainer.fast_dev_run=true",), "is added with +trainer.fast_dev_run=<value>"),
        (("sparsity.n=abc",), "sparsity.n=abc: Value 'abc' of type 'str' is incompatible"),
        (("seed=x",), "seed=x: Value 'x' of type 'str' could not be converted to Integer"),
        (("schedule.epochs=null",), "schedule.epochs=null: field 'schedule.epochs' is not Opt"),
        (("schedule.stages.0.shar=1",), "schedule.stages.0 has no shar; did you mean share?"),
        (("+seed=1",), "+seed=1: Could not append to config. An item is already at 'seed'"),
        (("~nothing",), "~nothing: Could not delete from config. 'nothing' does not exist"),
        (("sparsity.n=[",), "sparsity.n=[: not of the form key=value"),
        (("sparsity.n=8,16",), "sparsity.n=8,16: several values are a sweep: add -m"),
        (("sparsity.n=0",), "sparsity.n=0: must be an integer of 1 or more"),
        (("model=timm",), "model.name has no value and needs one: model.name=<value>"),
        (("-m", "sparsity.n=8,0,16"), "sparsity.n=0: must be an integer of 1 or more"),
        (("-m", "task=digits,glue/x"), "task=glue/x: no such task (there are cifar10, "),
        (("-m", "sparsity.n=range(0,3)"), "sparsity.n=0: must be an integer of 1 or more"),
        (("-m", "sparsity.n=8,9", "trainer.devices=2"), "trainer.devices=2, trainer.strategy="),
        (("-m", "seed=0,1", "resume=auto"), "resume=auto: a sweep (-m) cannot be resumed"),
        (("hydra.mode=MULTIRUN", "sparsity.n=8,0"), "sparsity.n=0: must be an integer"),
        (("hydra/launcher=slurm",), "hydra/launcher=slurm: no such hydra/launcher (there are "),
        (("--config-dir", "nowhere"), "--config-dir nowhere: there is no such directory"),
    ],
)
def test_bad_input_gets_one_sentence(refused, arguments: tuple[str, ...], sentence: str) -> None:
    problems = refused(*arguments)
    assert len(problems) == 1
    assert sentence in problems[0]


def test_an_unknown_task_lists_nested_ones(refused) -> None:
    (line,) = refused("task=imagenett")
    assert "digits, " in line
    assert "glue/sst2" in line


def test_all_kinds_of_problems_come_at_once(refused) -> None:
    problems = refused(
        *("modle=bert", "sparsity.m=3", "seed=x", "sparsity.n=[", "task=glue/sts"),
        *("sparsity.n=0", "trainer.precision=half", "schedule.stages.0.share=0.9"),
    )
    starts = ["sparsity.n=[", "task=glue/sts", "modle=bert", "sparsity.m=3", "seed=x"]
    starts += ["sparsity.n=0", "trainer.precision=half", "schedule.stages: the shares"]
    assert len(problems) == len(starts)
    assert all(line.startswith(start) for line, start in zip(problems, starts, strict=True))


def test_keys_of_a_group_without_option_are_not_judged(refused) -> None:
    assert len(refused("task=glue/ssst2", "task.max_length=64", "model=bert")) == 1


def test_a_sweep_is_judged_value_by_value(refused) -> None:
    problems = refused("-m", "sparsity.n=8,0", "binarization=had,hat", "task.batch_size=1,0")
    starts = ["binarization=hat", "sparsity.n=0", "task.batch_size=0"]
    assert sorted(line[:12] for line in problems) == sorted(start[:12] for start in starts)


def test_a_key_that_only_one_task_of_a_sweep_has(refused) -> None:
    line, mismatch = refused("-m", "task=glue/rte,digits", "model=minilm", "task.max_length=64")
    assert mismatch.startswith("task.modality=image")
    assert line.startswith("task.max_length=64: no such key: task has no max_length")


def test_a_further_config_directory_is_searched(refused, tmp_path: Path) -> None:
    (tmp_path / "sparsity").mkdir()
    (tmp_path / "sparsity" / "mine.yaml").write_text("n: 0\n")
    (line,) = refused("--config-dir", str(tmp_path), "sparsity=mine")
    assert line.startswith("sparsity.n=0")


def test_a_broken_root_or_option_of_the_users_own_is_reported(refused, tmp_path: Path) -> None:
    (tmp_path / "sparsity").mkdir()
    (tmp_path / "sparsity" / "mine.yaml").write_text("defaults: [nothing]\n")
    (tmp_path / "odd.yaml").write_text("defaults: [train, nothing]\n")
    further = ("--config-dir", str(tmp_path))
    (line,) = refused(*further, "sparsity=mine")
    assert "Could not load 'sparsity/nothing'" in line
    (line,) = refused(*further, "-cn", "odd", "seed=1")
    assert "Could not load 'nothing'" in line


def test_composing_imports_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "timm", "pytorch_lightning", "wandb", "sklearn"}
    code = (
        "import sys\nfrom had.cli import train\n"
        f"assert train(['--cfg', 'job', 'logger=wandb'], {CONF!r}) == 0\n"
        f"assert not {heavy!r} & set(sys.modules), {heavy!r} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_train_py_and_had_train_are_the_same_program() -> None:
    arguments = ("--cfg", "job", "task=glue/sst2", "model=bert", "binarization=had_plus")
    script, command = run("train.py", *arguments), run("-m", "had.cli", "train", *arguments)
    assert script.returncode == command.returncode == 0
    assert script.stdout == command.stdout
    assert OmegaConf.create(script.stdout).schedule.name == "mixed"


def test_train_py_runs_from_anywhere(tmp_path: Path) -> None:
    done = run(str(ROOT / "train.py"), "sparsity.n=0", directory=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_lists_tasks_and_models() -> None:
    done = run("train.py", "--help")
    assert done.returncode == 0
    for name in ("digits", "glue/sst2", "glue/cola", "bert", "vit_digits", "had_plus"):
        assert f"\n  {name} " in done.stdout


def test_had_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in cli.COMMANDS)


def test_an_unknown_command_suggests_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tran"]) == 2
    assert "no such command; did you mean train?" in capsys.readouterr().err


def test_every_command_names_something_importable() -> None:
    assert all(callable(command.load()) for command in cli.COMMANDS.values())


Runs = list[DictConfig]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runs:
    """The configurations that reached the runner, which is a stand-in; N = 2, 3, 4, 5 end badly."""
    reached: Runs = []
    ends = {2: HadError("no data"), 3: KeyboardInterrupt(), 4: Interrupted(15), 5: OSError("disk")}

    def stand_in(cfg: DictConfig, **told: object) -> dict[str, float]:
        reached.append(OmegaConf.create(OmegaConf.to_container(cfg, resolve=True)))
        if cfg.sparsity.n in ends:
            raise ends[cfg.sparsity.n]
        return {"score/student": 90.0 + cfg.sparsity.n}

    runner = types.ModuleType("had.runner")
    runner.run = stand_in
    monkeypatch.setitem(sys.modules, "had.runner", runner)
    monkeypatch.chdir(tmp_path)
    return reached


def test_a_run_gets_its_directory(runs: Runs, tmp_path: Path) -> None:
    assert cli.train([], CONF) == 0
    (cfg,) = runs
    directory = Path(cfg.run_dir)
    assert directory.parent == tmp_path / "outputs" / "digits" / "vit_digits"
    assert cfg.logger.csv.save_dir == cfg.trainer.default_root_dir == cfg.run_dir
    assert (directory / "train.log").is_file()


def test_a_given_run_directory_is_used(runs: Runs, tmp_path: Path) -> None:
    assert cli.train(["run_dir=here"], CONF) == 0
    assert runs[0].run_dir == str(tmp_path / "here")


def test_jobs_of_a_sweep_lie_side_by_side(runs: Runs, tmp_path: Path) -> None:
    assert cli.train(["-m", "binarization=had,had_plus", "sparsity.n=8,9"], CONF) == 0
    assert [(cfg.binarization.name, cfg.schedule.name, cfg.sparsity.n) for cfg in runs] == [
        *(("had", "paper", 8), ("had", "paper", 9)),
        *(("had_plus", "mixed", 8), ("had_plus", "mixed", 9)),
    ]
    places = [Path(cfg.run_dir) for cfg in runs]
    assert [place.name for place in places] == ["0", "1", "2", "3"]
    assert {place.parent.parent for place in places} == {tmp_path / "multirun"}


def test_an_experiment_brings_its_own_grid(runs: Runs) -> None:
    """Two recipes and three seeds, the last fastest, as in its file."""
    assert cli.train(["-m", "experiment=glue/headline_sst2"], CONF) == 0
    assert [(cfg.binarization.name, cfg.seed) for cfg in runs] == [
        *(("had", 0), ("had", 1), ("had", 2)),
        *(("had_plus", 0), ("had_plus", 1), ("had_plus", 2)),
    ]
    assert {(cfg.task.name, cfg.model.label, cfg.sparsity.n) for cfg in runs} == {
        ("sst2", "minilm", 30)
    }


@pytest.mark.parametrize(("n", "status"), [(2, 2), (3, 130), (4, 143), (5, 1)])
def test_how_a_run_ends_is_its_exit_status(
    runs: Runs, capfd: pytest.CaptureFixture[str], n: int, status: int
) -> None:
    assert cli.train([f"sparsity.n={n}"], CONF) == status
    assert len(runs) == 1
    assert ("Traceback" in capfd.readouterr().err) == (n == 5)


def test_bad_input_in_a_sweep_is_noticed_and_the_others_run(
    runs: Runs, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.train(["-m", "sparsity.n=8,2,9"], CONF) == 2
    assert [cfg.sparsity.n for cfg in runs] == [8, 2, 9]
    text = capfd.readouterr().err
    assert "no data" in text
    assert "Traceback" not in text


def test_further_processes_are_started_with_the_same_command_line(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning starts them with sys.argv, told to use the directory that Hydra names."""
    seen = []

    def look(cfg: DictConfig, **told: object) -> dict[str, float]:
        seen.append((sys.argv, Path(HydraConfig.get().run.dir).resolve() == Path(cfg.run_dir)))
        return {}

    line = ["had", "train", "sparsity.n=8"]
    monkeypatch.setattr(sys, "argv", line)
    monkeypatch.setattr(sys.modules["had.runner"], "run", look)
    assert cli.main() == 0
    assert seen == [(line, True)]
    assert sys.argv == line
