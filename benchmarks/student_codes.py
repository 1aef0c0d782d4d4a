"""Signs of a trained student's queries and keys, for `gpu_decode.py --codes`.

    python benchmarks/student_codes.py RUN_DIR --context 32768 --sequences 8 --out codes.pt
    python benchmarks/gpu_decode.py --codes codes.pt

The student of a finished language-model run reads held-out text of its task. Kept are, of one
layer, the signs of all keys and of the last token's queries: what a decoding step is about.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from had.attention.bits import pack_signs
from had.attention.module import HammingAttention, hamming_layers
from had.errors import HadError
from had.finished_run import Run
from had.tasks.language import CausalTask

_WIDTHS = (64, 128)  # of heads, that the fast decoding kernels know


def student_codes(directory: Path, context: int, sequences: int, layer: int) -> dict[str, Any]:
    """The signs of one layer, as `gpu_steps.read_codes` takes them.

    Args:
        directory: of a finished run.
        context: tokens of a sequence.
        sequences: at most, from all over the text.
        layer: 0 for the first; negative ones count from the last.

    Returns:
        `query`, words of `had.attention.bits` (B, H, 1, W), `key` (B, G, context, W), `head_dim`.

    Raises:
        HadError: it is no finished run of a causal language model, there is no such layer, its
            heads are of another width than the kernels know, or the text is too short.
    """
    run = Run(directory)
    student, task, preprocessor = run.student(), run.inputs.task, run.inputs.preprocessor
    if not isinstance(task, CausalTask):
        raise HadError(f"{directory}: its task is no language modelling: there is no long text")
    core = _core(student, layer)
    task.context = context
    text = next(iter(task.encode(preprocessor).evaluation.values()))
    rows = torch.linspace(0, len(text) - 1, min(sequences, len(text))).long().tolist()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    student = student.to(device).eval()
    read = []
    for row in rows:  # one at a time: a mask of a long text is large
        with _signs_of(core) as found, torch.no_grad():
            student.base_model(text[row]["inputs"]["input_ids"].to(device), use_cache=False)
        read += found
    query, key = (torch.cat(parts) for parts in zip(*read, strict=True))
    return {"query": query, "key": key, "head_dim": core.geometry.head_dim}


def _core(student: nn.Module, layer: int) -> HammingAttention:
    cores = hamming_layers(student)
    if not -len(cores) <= layer < len(cores):
        raise HadError(f"--layer {layer}: the student has {len(cores)}, the first of them is 0")
    core = cores[layer]
    if core.geometry.head_dim not in _WIDTHS:
        raise HadError(
            f"{core.geometry.name}: heads are {core.geometry.head_dim} wide, the fast decoding "
            f"kernels are for {' and '.join(map(str, _WIDTHS))}; train a student with such heads"
        )
    return core


@contextmanager
def _signs_of(core: HammingAttention) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """What a layer is called with: the last query's and all keys' signs, on the CPU."""
    found: list[tuple[Tensor, Tensor]] = []

    def note(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        query, key = arguments[:2]
        found.append((pack_signs(query[:, :, -1:]).cpu(), pack_signs(key).cpu()))

    hook = core.register_forward_pre_hook(note)
    try:
        yield found
    finally:
        hook.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="directory of a finished language-model run")
    parser.add_argument("--context", type=int, required=True, help="tokens of a sequence")
    parser.add_argument("--sequences", type=int, default=8, help="at most")
    parser.add_argument("--layer", type=int, default=-1, help="0 is the first, -1 the last")
    parser.add_argument("--out", type=Path, required=True, help="file that gets the signs")
    options = parser.parse_args()
    try:
        codes = student_codes(options.run, options.context, options.sequences, options.layer)
    except HadError as error:
        sys.exit(str(error))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(codes, options.out)
    shapes = ", ".join(f"{name} {tuple(codes[name].shape)}" for name in ("query", "key"))
    told = f"{shapes}, words of {codes['head_dim']} signs: {options.out}"
    Console().print(told, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
