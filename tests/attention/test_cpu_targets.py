"""Machine code for lesser instruction sets than this machine's, and machine code kept on disk.

Numba compiles for one target a process, so each runs in a process of its own.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from had.attention.backends.cpu_target import apply_target
from tests.forked import python

pytest.importorskip("numba")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        platform.machine() not in ("x86_64", "AMD64"), reason="the lesser targets are those of x86"
    ),
]
ROOT = Path(__file__).parents[2]
REPORT = """
import sys
import torch
from had.attention.backends import BACKENDS, PackedCall
assert "numba" not in sys.modules, "numba is imported before it is needed"
words = torch.zeros(1, 1, 1, 2, dtype=torch.int32)
call = PackedCall(words, words, torch.zeros(1, 1, 1, 16), 64, 1, 1.0)
assert BACKENDS["cpu"].supports_packed(call)
from had.attention.backends import cpu_rows
from numba import config
stats = cpu_rows.attend.stats
print(config.CPU_NAME, sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def run(target: str, cache: Path, *arguments: str) -> str:
    """Run Python on a target, its machine code in `cache`."""
    environment = {**os.environ, "HAD_CPU_TARGET": target, "NUMBA_CACHE_DIR": str(cache)}
    with python(arguments, directory=ROOT, environment=environment) as process:
        done = process.ended()
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("target", ["avx2", "portable"])
def test_the_oracle_on_a_lesser_target(target: str, tmp_path: Path) -> None:
    if target == "avx2" and "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this machine has no AVX2")
    oracle = "tests/attention/test_cpu_oracle.py"
    chosen = "not two-byte and not extreme and not narrow"  # types that cost a compilation each
    alone = ("-n", "0", "-p", "no:cacheprovider")  # further processes would only import, and wait
    run(target, tmp_path, "-m", "pytest", *alone, oracle, "-k", chosen)
    # Another process finds the machine code that the first left.
    report = tmp_path / "report.py"
    report.write_text(REPORT)
    assert run(target, tmp_path, str(report)).split()[1:] == ["1", "0"]


def test_an_unknown_target_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAD_CPU_TARGET", "avx1024")
    with pytest.raises(ValueError, match=r"avx1024.*unknown; there are avx512, avx2, portable"):
        apply_target()
