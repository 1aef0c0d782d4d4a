"""CUDA kernels from source at run time: compiled by NVRTC, kept on disk, launched.

NVRTC and the driver's interface come with PyTorch's CUDA packages (`cuda-bindings`), so that users
need neither a compiler nor a build step. Machine code is cached under `$HAD_CACHE/kernels` (default
`~/.cache/had/kernels`), named by a hash of source, options and compiler version.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from had.errors import HadError

log = logging.getLogger(__name__)

Constants = tuple[tuple[str, int], ...]
_SOURCES = Path(__file__).parent
_MOST_BLOCKS = 16  # of a cluster on Hopper
_ARCHITECTURE = {(9, 0): "sm_90a"}


@cache
def runs_on(device: torch.device) -> bool:
    """Whether the kernels can be compiled for and run on a device: compute capability 9.0."""
    if device.type != "cuda" or torch.version.cuda is None or not bindings_installed():
        return False
    return torch.cuda.get_device_capability(device) in _ARCHITECTURE


def bindings_installed() -> bool:
    """Whether NVRTC and the driver can be called from Python."""
    return find_spec("cuda") is not None and find_spec("cuda.bindings") is not None


@dataclass(frozen=True)
class Kernel:
    """A kernel loaded on one device.

    Attributes:
        function: the driver's handle.
        threads: of a block.
        shared_bytes: dynamic shared memory that a block may ask for.
    """

    function: Any
    threads: int
    shared_bytes: int
    _clusters: dict[int, int] = field(default_factory=dict)

    def resident_clusters(self, blocks: int) -> int:
        """How many clusters of so many blocks the device can hold at a time."""
        if blocks not in self._clusters:
            from cuda.bindings import driver

            launch = Launch(self, (blocks, 1, 1), cluster=blocks)
            count = _checked(driver.cuOccupancyMaxActiveClusters(self.function, launch.config))
            self._clusters[blocks] = int(count)
        return self._clusters[blocks]

    def cluster_size(self, clusters: int, most: int) -> int:
        """Blocks of a cluster, as many as leave room for all clusters at once.

        Args:
            clusters: how many there are.
            most: blocks that a cluster has work for.
        """
        for blocks in range(min(_MOST_BLOCKS, most, self.resident_clusters(1) // clusters), 1, -1):
            if self.resident_clusters(blocks) >= clusters:
                return blocks
        return 1


class Launch:
    """How a kernel is launched, put together once for any number of launches.

    Args:
        kernel: the kernel.
        grid: blocks.
        cluster: blocks of a cluster, along the grid's first side.
        overlapping: it may start before the kernel ahead of it in the stream has ended, for whose
            results it waits by itself (`wait_for_earlier_kernels`).
        cooperative: all its blocks are resident at a time, or the driver refuses.
        shared_bytes: dynamic shared memory; None for all that the kernel may ask for.
    """

    def __init__(
        self,
        kernel: Kernel,
        grid: tuple[int, int, int],
        *,
        cluster: int = 1,
        overlapping: bool = False,
        cooperative: bool = False,
        shared_bytes: int | None = None,
    ) -> None:
        from cuda.bindings import driver

        config = driver.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = grid
        config.blockDimX, config.blockDimY, config.blockDimZ = kernel.threads, 1, 1
        config.sharedMemBytes = kernel.shared_bytes if shared_bytes is None else shared_bytes
        config.attrs = [
            _cluster_attribute(cluster),
            *[_overlap_attribute()] * overlapping,
            *[_cooperative_attribute()] * cooperative,
        ]
        config.numAttrs = len(config.attrs)
        self.config = config
        self._function = kernel.function
        self._call = driver.cuLaunchKernelEx

    def __call__(self, arguments: ctypes.Structure, stream: int) -> None:
        """Queue the kernel on a stream."""
        pointer = ctypes.c_void_p(ctypes.addressof(arguments))
        self.config.hStream = stream
        _checked(self._call(self.config, self._function, ctypes.addressof(pointer), 0))


def _cluster_attribute(blocks: int) -> Any:
    from cuda.bindings import driver

    attribute = driver.CUlaunchAttribute()
    attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
    shape = attribute.value.clusterDim
    shape.x, shape.y, shape.z = blocks, 1, 1
    return attribute


def _overlap_attribute() -> Any:
    from cuda.bindings import driver

    attribute = driver.CUlaunchAttribute()
    ids = driver.CUlaunchAttributeID
    attribute.id = ids.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
    attribute.value.programmaticStreamSerializationAllowed = 1
    return attribute


def _cooperative_attribute() -> Any:
    from cuda.bindings import driver

    attribute = driver.CUlaunchAttribute()
    attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_COOPERATIVE
    attribute.value.cooperative = 1
    return attribute


_HERE = nullcontext()


def on(device: int) -> AbstractContextManager[Any]:
    """`torch.cuda.device`, for less where the device is the current one already."""
    return _HERE if torch.cuda.current_device() == device else torch.cuda.device(device)


def current_stream(device: int) -> int:
    """PyTorch's current stream on a device, as the driver knows it."""
    # Public functions put an object around it, which takes longer than all else of a launch here.
    return int(torch._C._cuda_getCurrentRawStream(device))


def capture_of(stream: int) -> int:
    """Which capture into a CUDA graph is under way on a stream that is being captured."""
    from cuda.bindings import driver

    _, capture, *_ = _checked(driver.cuStreamGetCaptureInfo(driver.CUstream(stream)))
    return int(capture)


@lru_cache(maxsize=256)
def load(
    source: str, name: str, constants: Constants, threads: int, shared_bytes: int, device: int
) -> Kernel:
    """Compile, or read from the cache on disk, and load a kernel.

    Args:
        source: file beside this one.
        name: of the kernel in it.
        constants: names and values defined for the compiler.
        threads: of a block, defined as THREADS.
        shared_bytes: dynamic shared memory of a block, defined as SHARED_BYTES.
        device: index.

    Raises:
        HadError: the compiler or the driver refused.
    """
    from cuda.bindings import driver

    architecture = _ARCHITECTURE[torch.cuda.get_device_capability(device)]
    constants = (*constants, ("THREADS", threads), ("SHARED_BYTES", shared_bytes))
    code = machine_code(source, constants, architecture)
    with torch.cuda.device(device):
        torch.cuda.current_stream()  # makes the device's context current
        module = _checked(driver.cuModuleLoadData(code))
        function = _checked(driver.cuModuleGetFunction(module, name.encode()))
    attributes = driver.CUfunction_attribute
    for attribute, value in (
        (attributes.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared_bytes),
        (attributes.CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1),
    ):
        _checked(driver.cuFuncSetAttribute(function, attribute, value))
    return Kernel(function, threads, shared_bytes)


def machine_code(source: str, constants: Constants, architecture: str) -> bytes:
    """The compiled kernel, from the cache on disk if it is there. Needs no device."""
    text = _with_includes(source)
    options = [f"--gpu-architecture={architecture}", "--std=c++17", "--use_fast_math"]
    options += [f"-D{name}={value}" for name, value in constants]
    key = hashlib.sha256("\0".join([text, *options, _compiler_version()]).encode()).hexdigest()
    path = _cache_folder() / f"{Path(source).stem}-{key[:32]}.cubin"
    if path.is_file():
        return path.read_bytes()
    code = _compile(text, source, options)
    _keep(path, code)
    return code


def _with_includes(source: str) -> str:
    """A source file, its `#include "..."` lines replaced by the files they name.

    One text holds all that the machine code depends on, and so names it in the cache.
    """
    text = (_SOURCES / source).read_text()
    return re.sub(r'#include "([^"]+)"\n', lambda found: _with_includes(found[1]), text)


def _compile(text: str, name: str, options: list[str]) -> bytes:
    from cuda.bindings import nvrtc

    program = _checked(nvrtc.nvrtcCreateProgram(text.encode(), name.encode(), 0, [], []))
    (result,) = nvrtc.nvrtcCompileProgram(program, len(options), [x.encode() for x in options])
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        messages = b" " * _checked(nvrtc.nvrtcGetProgramLogSize(program))
        _checked(nvrtc.nvrtcGetProgramLog(program, messages))
        raise HadError(f"NVRTC cannot compile {name}: {messages.decode(errors='replace')}")
    code = b" " * _checked(nvrtc.nvrtcGetCUBINSize(program))
    _checked(nvrtc.nvrtcGetCUBIN(program, code))
    _checked(nvrtc.nvrtcDestroyProgram(program))
    return code


@cache
def _compiler_version() -> str:
    from cuda.bindings import nvrtc

    return ".".join(map(str, _checked(nvrtc.nvrtcVersion())))


def _cache_folder() -> Path:
    root = os.environ.get("HAD_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "had") / "kernels"


def _keep(path: Path, code: bytes) -> None:
    """Write through a rename: another process never reads half a file."""
    part = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(code)
        part.replace(path)
    except OSError as error:
        log.warning("compiled kernel not cached in %s: %s", path.parent, error)


def _checked(answer: tuple[Any, ...]) -> Any:
    """What a call of the driver or the compiler returned.

    Raises:
        HadError: it failed.
    """
    status, *values = answer
    if int(status) != 0:
        raise HadError(f"CUDA call failed: {status.name} ({int(status)})")
    return values[0] if len(values) == 1 else tuple(values)
