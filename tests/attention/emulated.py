"""The CUDA kernels as C++ functions: compiled for an emulation of a GPU's threads, and called."""

from __future__ import annotations

import ctypes
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from had.attention.backends import cuda_decode_fused, cuda_decode_plan
from had.attention.backends.base import PackedCall
from had.attention.backends.cuda_decode_fused import mail_words
from had.attention.backends.cuda_decode_plan import scratch_sizes, template
from had.attention.backends.cuda_decode_shape import Arguments, Part, Shape

SOURCES = Path(cuda_decode_plan.__file__).parent
EMULATION = Path(__file__).parent / "emulation"

FLAGS = (
    *("-O1", "-std=c++17", "-shared", "-fPIC", "-w", "-fno-strict-aliasing"),
    *("-fno-gnu-unique", "-Wl,-Bsymbolic"),  # names are those of their library
    *("-fsanitize=alignment,bounds", "-fsanitize-undefined-trap-on-error"),
)
NEEDED = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler"),
    pytest.mark.skipif(
        (sys.platform, platform.machine()) != ("linux", "x86_64"),
        reason="the emulation switches stacks on Linux on x86-64 only",
    ),
    pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels run on the GPU itself"),
]
Build = Callable[[str, dict[str, int]], ctypes.CDLL]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A function that compiles a program of the emulation with constants, once each."""
    folder = tmp_path_factory.mktemp("emulation")
    for source in SOURCES.glob("cuda_*.cu"):
        (folder / source.name).write_text(flattened(source.name))
    libraries: dict[str, ctypes.CDLL] = {}

    def compiled(program: str, constants: dict[str, int]) -> ctypes.CDLL:
        options = [f"-D{name}={value}" for name, value in constants.items()]
        library = folder / f"{len(libraries)}.so"
        key = " ".join([program, *options])
        if key not in libraries:
            command = ["g++", *FLAGS, *options, f"-I{folder}", str(EMULATION / program)]
            subprocess.run([*command, "-o", str(library)], check=True)
            libraries[key] = ctypes.CDLL(str(library))
        return libraries[key]

    return compiled


def flattened(name: str) -> str:
    """A source with all it includes, but the header that the emulation replaces."""
    if name == "cuda_device.cuh":
        return ""
    return re.sub(r'#include "([^"]+)"\n', lambda m: flattened(m[1]), (SOURCES / name).read_text())


def library_of(build: Build, shape: Shape, eager: bool) -> ctypes.CDLL:
    names = ("SCORE_THREADS", "SCORE_SHARED_BYTES", "GATHER_THREADS", "GATHER_SHARED_BYTES")
    constants = dict(shape.constants()) | {name: getattr(cuda_decode_plan, name) for name in names}
    constants |= {"FUSED_THREADS": cuda_decode_fused.THREADS}
    library = build("decode.cpp", constants)
    library.copy_eagerly(eager)
    return library


def run(
    call: PackedCall,
    shape: Shape,
    a: Arguments,
    launch: Callable[[Arguments], None],
    part: Part | None,
) -> Tensor:
    """The output of a call: its addresses are filled in before it is launched."""
    size = (shape.batch, shape.heads, shape.tokens, shape.width)
    output = torch.full(size, torch.nan, dtype=shape.output_dtype)
    query = call.query.contiguous()
    mask = None if call.mask is None else followed_by_garbage(call.mask)
    a.point_to(replace(call, mask=mask), query, output, part)
    launch(a)
    return output


def attend(
    build: Build,
    call: PackedCall,
    splits: int,
    blocks: int,
    eager: bool,
    part: Part | None = None,
) -> Tensor:
    """Both kernels, with so many splits of the keys and so many blocks for a row's values."""
    shape = Shape.of(call, part is not None)
    library, a = library_of(build, shape, eager), template(shape, splits)
    scratch = [torch.full((n,), 0x5A, dtype=torch.uint8) for n in scratch_sizes(shape, a)]
    a.list, a.listed, a.histogram, a.allowed = (x.data_ptr() for x in scratch)

    def launch(a: Arguments) -> None:
        library.run_score(ctypes.byref(a), splits, shape.groups, shape.batch)
        library.run_gather(ctypes.byref(a), blocks, shape.groups * shape.rows, shape.batch)

    return run(call, shape, a, launch, part)


def attend_fused(
    build: Build, call: PackedCall, splits: int, eager: bool, part: Part | None = None
) -> Tensor:
    """The one kernel, with so many splits of the keys; afterwards its mail is as it was."""
    shape = Shape.of(call, part is not None)
    library = library_of(build, shape, eager)
    a = cuda_decode_fused.template(shape, splits)
    mail = torch.full((mail_words(a.splits * shape.batch * shape.groups),), -1, dtype=torch.int32)
    a.mail = mail.data_ptr()
    size = cuda_decode_fused.shared_bytes(shape, a)

    def launch(a: Arguments) -> None:
        library.run_fused(ctypes.byref(a), a.splits, shape.groups, shape.batch, size)

    output = run(call, shape, a, launch, part)
    assert (mail == -1).all()
    return output


def followed_by_garbage(mask: Tensor) -> Tensor:
    """The mask, bytes that are no part of it behind its rows."""
    memory = torch.full((mask.numel() + 16,), 0xFE, dtype=torch.uint8)
    view = memory[: mask.numel()].view(mask.shape)
    view.copy_(mask)
    return view.view(torch.bool)
