"""Dependencies point one way; a few imports are forbidden, or allowed in one place alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "had"

# What each part may import of the others, lowest first: nothing here names a part below it.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "paths": set(),
    "lean_imports": set(),
    "pages": {"errors"},
    "hardware": {"errors", "pages"},
    "attention": {"errors"},
    "build": {"errors"},
    "config": {
        *("errors", "paths", "lean_imports", "pages"),
        *("build", "hardware"),  # to judge values
    },
    "models": {"errors", "paths", "attention"},
    "tasks": {"errors"},
    "distill": {"errors", "config", "attention", "models", "tasks"},
    "lightning": {"errors", "config", "build", "hardware", "attention", "tasks", "distill"},
    "results": {"errors", "config", "hardware"},  # config: wording and keys; hardware: Pareto front
    "inputs": {"errors", "build", "config", "models", "tasks"},
    "runner": {"config", "models", "tasks", "distill", "lightning", "results", "inputs"},
    "finished_run": {
        *("errors", "config", "build", "models", "distill", "lightning", "results", "inputs"),
        "runner",
    },
    "evaluation": {
        *("errors", "config", "attention", "models", "distill", "lightning", "results", "runner"),
        "finished_run",
    },
    "training": {"config", "runner", "finished_run"},
    "sweeps": {
        *("errors", "paths", "lean_imports", "config", "lightning", "results", "inputs"),
        "runner",
    },
    "commands": {
        *("errors", "paths", "config", "build", "hardware", "attention", "models", "tasks"),
        *("results", "runner", "finished_run", "sweeps"),
    },
    "cli": {
        *("errors", "paths", "lean_imports", "config", "lightning", "runner", "evaluation"),
        "commands",
    },
}

HEAVY = {"torch", "transformers", "timm", "pytorch_lightning", "torchmetrics", "triton"}
ONLY_IN = {
    "transformers": {
        *("attention/cache.py", "attention/cache_layers.py", "attention/cache_fixed.py"),
        *("attention/transformers.py", "models/decoding_graphs.py"),
        *("models/heads.py", "models/llama2c.py", "models/positions.py", "models/transformers.py"),
        *("models/export.py", "models/exporters.py", "models/transformers_images.py"),
        *("models/template/attention.py", "models/template/transformers.py"),  # travel alone
        "tasks/vocabulary.py",  # tokenizers of our own, in the form that travels with a student
    },
    "timm": {"attention/timm.py", "models/timm.py", "models/template/timm.py"},
    "datasets": {"tasks/hub.py"},
    "sklearn": {"tasks/digits.py"},
}
LIGHT = {"hardware", "config", "cli", "build", "errors", "paths", "lean_imports"}
NEVER = {"lightning"}  # the same code as pytorch_lightning under another name: not both
INSIDE_FUNCTIONS = {
    *("wandb", "datasets", "sklearn", "matplotlib", "tensorboard"),
    *("optuna", "submitit", "joblib"),
}


@dataclass(frozen=True)
class Import:
    """One imported module.

    Attributes:
        file: where, relative to the package.
        line: there.
        name: dotted, of the module.
        at_top: whether importing the file imports it: not in a function, not for type checkers.
    """

    file: Path
    line: int
    name: str
    at_top: bool

    @property
    def part(self) -> str:
        """The part of the package that imports."""
        return self.file.parts[0].removesuffix(".py")

    @property
    def package(self) -> str:
        return self.name.split(".")[0]

    @property
    def target(self) -> str | None:
        """The part of the package that is imported; None for anything else."""
        parts = self.name.split(".")
        return parts[1] if parts[0] == "had" and len(parts) > 1 else None

    def __str__(self) -> str:
        return f"had/{self.file}:{self.line} imports {self.name}"


def imports_in(source: str, file: Path) -> list[Import]:
    """All imports of a file, also those inside functions."""
    return list(_walk(ast.parse(source), file, at_top=True))


def _walk(node: ast.AST, file: Path, at_top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        deferred = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        deferred |= isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        for name in _names(child):
            yield Import(file, child.lineno, name, at_top)
        yield from _walk(child, file, at_top and not deferred)


def _names(node: ast.AST) -> list[str]:
    """The modules that a statement imports; `from had import runner` is `had.runner`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute in this package"
        if node.module == "had":
            return [f"had.{alias.name}" for alias in node.names if alias.name != "__version__"]
        return [str(node.module)]
    return []


def all_imports() -> list[Import]:
    files = sorted(PACKAGE.rglob("*.py"))
    return [
        found
        for file in files
        if file != PACKAGE / "__init__.py"  # names lazily what lies anywhere
        for found in imports_in(file.read_text(), file.relative_to(PACKAGE))
    ]


def backward(imports: list[Import]) -> list[str]:
    """Imports between parts that `ALLOWED` does not list."""
    return [
        str(each)
        for each in imports
        if each.target not in (None, each.part) and each.target not in ALLOWED[each.part]
    ]


IMPORTS = all_imports()


def test_every_part_has_its_place() -> None:
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.iterdir()}
    found = {part for part in parts if not part.startswith("__")} - {"conf"}
    assert found == set(ALLOWED)


def test_no_arrow_runs_back_up() -> None:
    assert backward(IMPORTS) == []


def test_the_allowed_arrows_have_an_order() -> None:
    """A part may only be allowed what stands before it: so there is no circle among them."""
    order = list(ALLOWED)
    for part, below in ALLOWED.items():
        for other in below:
            assert order.index(other) < order.index(part), (part, other)


def test_the_reader_sees_every_kind_of_import() -> None:
    source = "import had.runner\nfrom had import cli\ndef f():\n    from had.lightning import fit\n"
    found = imports_in(source, Path("attention/module.py"))
    assert [(each.target, each.at_top) for each in found] == [
        *(("runner", True), ("cli", True), ("lightning", False))
    ]
    assert len(backward(found)) == 3


def test_an_import_for_type_checkers_counts_as_an_arrow_but_not_as_loading() -> None:
    source = "if TYPE_CHECKING:\n    import torch\n    from had.runner import run\n"
    found = imports_in(source, Path("hardware/spec.py"))
    assert [each.at_top for each in found] == [False, False]
    assert len(backward(found)) == 1


@pytest.mark.parametrize("part", sorted(LIGHT))
def test_light_parts_load_nothing_heavy(part: str) -> None:
    """`had --help`, `--cfg job` and the accelerator models answer without any of these."""
    wrong = [each for each in IMPORTS if each.part == part and each.package in HEAVY]
    assert [str(each) for each in wrong if each.at_top or part == "hardware"] == []


def test_hardware_needs_nothing_heavy_at_run_time() -> None:
    look = f"import sys, had.hardware; sys.exit(bool({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", look], cwd=PACKAGE.parent, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize(("library", "files"), ONLY_IN.items())
def test_a_library_is_imported_in_its_adapters_alone(library: str, files: set[str]) -> None:
    found = {each.file.as_posix() for each in IMPORTS if each.package == library}
    assert found == files


def test_what_travels_alone_imports_nothing_of_this_package() -> None:
    template = [each for each in IMPORTS if "template" in each.file.parts]
    own = {each.name for each in template if each.package == "had"}
    assert own == {"had.models.template.attention"}
    assert len(template) > len(own)


def test_lightning_has_one_name() -> None:
    assert [str(each) for each in IMPORTS if each.package in NEVER] == []
    assert any(each.package == "pytorch_lightning" for each in IMPORTS)


def test_what_is_optional_or_slow_is_imported_where_it_is_used() -> None:
    wrong = [each for each in IMPORTS if each.at_top and each.package in INSIDE_FUNCTIONS]
    assert [str(each) for each in wrong] == []


def test_nothing_is_printed() -> None:
    """The user is told by the log, the tables and the complaints of the command line."""
    printing = [
        f"{file.relative_to(PACKAGE)}:{node.lineno}"
        for file in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    ]
    assert printing == []
