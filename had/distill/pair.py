"""Teacher and student side by side on one batch, layer matched with layer; or a model alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from had.attention.module import hamming_layers
from had.attention.recorded import recorded_layers
from had.config import StageWeights
from had.distill.losses import Signals, block_error
from had.errors import HadError
from had.models.family import family_of


class Alone:
    """A model without a teacher: nothing but its logits, for fine-tuning on labels."""

    teacher: nn.Module | None = None

    def __init__(self, student: nn.Module) -> None:
        self.student = student
        self.family = family_of(student)

    def __call__(self, inputs: dict[str, Tensor], weights: StageWeights) -> Signals:
        return Signals(self.family.logits(self.student, inputs))


class TeacherStudent:
    """Runs both models and collects what the stage's losses need, no more.

    The teacher's layers record their queries and keys; each student layer compares its rows with
    them while it computes its own, so no attention map outlives its layer.

    Args:
        teacher: a model whose attention is recorded (`had.models.convert.record_attention`).
        student: a model converted by `had.binarize`.
        stride: every stride-th query row is compared, see `AttentionTarget`.

    Raises:
        HadError: the two do not have the same attention layers.
    """

    block_error = staticmethod(block_error)  # a compiled one hides it while training compiles

    def __init__(self, teacher: nn.Module, student: nn.Module, stride: int = 1) -> None:
        self.teacher, self.student, self.stride = teacher, student, stride
        self.family = family_of(student)
        self._layers = list(zip(hamming_layers(student), recorded_layers(teacher), strict=False))
        ours = [layer.geometry for layer in hamming_layers(student)]
        theirs = [layer.geometry for layer in recorded_layers(teacher)]
        if ours != theirs:
            raise HadError(
                f"teacher and student differ in their attention layers: {theirs} and {ours}"
            )
        self._blocks = enclosing_blocks([geometry.name for geometry in ours])
        self._student_states = BlockOutputs(student, self._blocks)
        self._teacher_states = BlockOutputs(teacher, self._blocks)

    def __call__(self, inputs: dict[str, Tensor], weights: StageWeights) -> Signals:
        """One forward pass of each; gradients flow through the student only.

        Args:
            inputs: what the models take, tensors with the batch first.
            weights: losses of weight 0 are not collected.
        """
        with self._hidden_states(weights.hidden > 0):
            with torch.no_grad():
                teacher_logits = self.family.logits(self.teacher, inputs)
            with self._targets(weights.attention > 0):
                logits = self.family.logits(self.student, inputs)
                divergences = tuple(
                    layer.divergence for layer, _ in self._layers if layer.divergence is not None
                )
            hidden = self._block_errors(inputs) if weights.hidden > 0 else ()
        return Signals(logits, teacher_logits, divergences, hidden, _real_tokens(inputs))

    def _block_errors(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        states = zip(
            self._blocks, self._student_states.take(), self._teacher_states.take(), strict=True
        )
        return tuple(
            self.block_error(ours, theirs, _real_tokens(inputs, block))
            for block, ours, theirs in states
        )

    @contextmanager
    def _targets(self, wanted: bool) -> Iterator[None]:
        """Hand each student layer its teacher's queries and keys for the duration of a forward."""
        for student, teacher in self._layers:
            if wanted and teacher.record is not None:
                student.target = replace(teacher.record, stride=self.stride)
            teacher.record = None
        try:
            yield
        finally:
            for student, _ in self._layers:
                student.target = student.divergence = None

    @contextmanager
    def _hidden_states(self, wanted: bool) -> Iterator[None]:
        if not wanted:
            yield
            return
        with self._student_states.watching(), self._teacher_states.watching():
            yield


def with_copied_student(models: Alone | TeacherStudent) -> Alone | TeacherStudent:
    """The same with a copy of the student, and the teacher itself."""
    student = copy.deepcopy(models.student)
    if isinstance(models, Alone):
        return Alone(student)
    return TeacherStudent(models.teacher, student, models.stride)


class BlockOutputs:
    """The outputs of a model's blocks while it is being watched, by forward hooks.

    Args:
        model: any module.
        names: submodules whose output is a tensor, or a tuple that begins with one.
    """

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        self._blocks = [model.get_submodule(name) for name in names]
        self._outputs: list[Tensor] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Collect outputs for the duration of a forward pass; what nobody took is forgotten.

        A pass may fail half way, as when it is captured in too little memory, and be run again.
        """
        handles = [block.register_forward_hook(self._store) for block in self._blocks]
        try:
            yield
        finally:
            self._outputs = []
            for handle in handles:
                handle.remove()

    def take(self) -> list[Tensor]:
        """What was collected since the last call, in the order of the forward pass."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def _store(self, module: nn.Module, args: object, output: Tensor | tuple[Tensor, ...]) -> None:
        self._outputs.append(output if isinstance(output, Tensor) else output[0])


def enclosing_blocks(layers: list[str]) -> list[str]:
    """The repeated block around each attention layer: its path up to the last numbered part.

    For "bert.encoder.layer.3.attention.self" that is "bert.encoder.layer.3".
    """
    blocks = []
    for layer in layers:
        parts = layer.split(".")
        last_number = max((i for i, part in enumerate(parts) if part.isdigit()), default=-1)
        blocks.append(".".join(parts[: last_number + 1]))
    return [block for block in dict.fromkeys(blocks) if block]


def _real_tokens(inputs: dict[str, Tensor], block: str = "") -> Tensor | None:
    """bool (B, T): which tokens that a block sees are no padding; None: all of them."""
    own = "decoder_input_ids" in inputs and "decoder" in block.split(".")
    mask = inputs.get("decoder_attention_mask" if own else "attention_mask")
    return None if mask is None else mask.bool()
