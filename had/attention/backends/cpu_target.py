"""The instruction set that the CPU kernels are compiled for.

By default that of the machine, as LLVM finds it. HAD_CPU_TARGET in the environment names a lesser
one: to test its code, or for machine code that is shared by unequal machines. Numba has one target
a process, so the choice holds for everything that numba compiles in it.
"""

from __future__ import annotations

import os
from typing import Any

VARIABLE = "HAD_CPU_TARGET"

_AVX2 = "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+popcnt"
_AVX512 = "+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl,+avx512vbmi,+avx512vbmi2"
_COUNTS = "+avx512bitalg,+avx512vpopcntdq"

TARGETS: dict[str, tuple[str, str]] = {
    "avx512": ("x86-64-v4", f"{_AVX2},{_AVX512},{_COUNTS}"),
    "avx2": ("x86-64-v3", _AVX2),
    "portable": ("x86-64", ""),
}
"""LLVM's names of a processor and of its features; "portable" runs on any 64-bit x86."""


def apply_target() -> None:
    """Make numba compile for the instruction set that HAD_CPU_TARGET names, if any.

    Raises:
        ValueError: it is unknown.
    """
    name = os.environ.get(VARIABLE)
    if not name:
        return
    if name not in TARGETS:
        raise ValueError(f"{VARIABLE} = {name!r} is unknown; there are {', '.join(TARGETS)}")
    import numba

    settings: Any = numba.config
    settings.CPU_NAME, settings.CPU_FEATURES = TARGETS[name]
