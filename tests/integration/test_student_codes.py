"""Signs of a trained student's queries and keys, written for the benchmark of decoding."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import had
from had.attention import module
from had.attention.backends import Backend, PackedCall, choose_packed_backend
from had.attention.bits import unpack_signs
from had.cli import main
from had.finished_run import Run
from tests.integration.command_line import ROOT, overrides
from tests.integration.test_language_runs import LANGUAGE, TINY

CONTEXT = 48
WIDE = ("model.arguments.hidden_size=128", "task.epochs=1")  # two heads of 64


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on sequences of 32 tokens, of a model whose heads are 64 wide."""
    return trained(tmp_path_factory.mktemp("wide"), *WIDE)


def trained(directory: Path, *changes: str) -> Path:
    text = directory / "rhyme.txt"
    text.write_text("one two three four five once I caught a fish alive\n" * 60)
    places = (f"run_dir={directory / 'run'}", f"paths.cache={directory / 'cache'}")
    given = (*LANGUAGE, f"task.path={text}", *places, "task.epochs=1", *changes)
    assert main(["train", *overrides(*given, base=TINY)]) == 0
    return directory / "run"


def script(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str) -> dict[str, object]:
    """A benchmark as a user starts it; its global names."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    return runpy.run_path(str(ROOT / "benchmarks" / name), run_name="__main__")


def test_they_are_what_the_layer_was_given(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read back by the benchmark of decoding; sequences longer than those trained with."""
    file = tmp_path / "codes.pt"
    wishes = ("--context", str(CONTEXT), "--sequences", "3", "--layer", "1", "--out", str(file))
    script(monkeypatch, "student_codes.py", str(run), *wishes)
    from gpu_steps import read_codes, student_case

    query, key = read_codes(file)
    assert query.shape == (3, 2, 1, 64)
    assert key.shape == (3, 1, CONTEXT, 64)
    case = student_case(file, n=4)
    assert (case.batch, case.keys, case.heads, case.groups, case.width) == (3, CONTEXT, 2, 1, 64)
    for sequence, ids in ((0, held_out(run)[0]), (2, held_out(run)[-1])):
        call = last_step(run, ids, monkeypatch)
        assert torch.equal(query[sequence], unpack_signs(call.query[0], 64))
        assert torch.equal(key[sequence], unpack_signs(call.key[0], 64))


def held_out(run: Path) -> Tensor:
    """Sequences of the text that the run was evaluated on, (sequences, CONTEXT)."""
    read = Run(run).inputs
    read.task.context = CONTEXT  # type: ignore[attr-defined]
    return read.task.encode(read.preprocessor).evaluation[""].inputs["input_ids"].long()


def last_step(run: Path, ids: Tensor, monkeypatch: pytest.MonkeyPatch) -> PackedCall:
    """What the second layer attends from when the last token is decoded from a cache of bits."""
    calls: list[PackedCall] = []

    def note(name: str, call: PackedCall) -> Backend:
        calls.append(call)
        return choose_packed_backend(name, call)

    student = had.load_student(run / "student").eval()
    cache = had.BinaryKeyCache(student.config)
    with torch.no_grad(), monkeypatch.context() as patch:
        student(input_ids=ids[None, :-1], past_key_values=cache)
        patch.setattr(module, "choose_packed_backend", note)
        student(input_ids=ids[None, -1:], past_key_values=cache)
    return calls[1]


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        (("--context", "100000"), "too few for one sequence"),
        (("--context", "32", "--layer", "2"), "--layer 2: the student has 2"),
    ],
)
def test_what_there_is_not_is_refused(
    run: Path, wishes: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=message):
        script(monkeypatch, "student_codes.py", str(run), *wishes, "--out", "unused.pt")


def test_heads_that_no_fast_kernel_knows_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(tmp_path)
    wishes = ("--context", "32", "--out", "unused.pt")
    with pytest.raises(SystemExit, match="heads are 8 wide"):
        script(monkeypatch, "student_codes.py", str(run), *wishes)
