"""Decoding steps as CUDA graphs: a new token's launches take the host longer than the GPU.

A graph holds tensors at fixed places. So the tokens' cache lends its buffers to a fixed one
(`had.attention.cache_fixed`), whose step is the same for every token until the buffers grow.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from had.attention.backends import cuda_compile
from had.attention.cache import BinaryKeyCache
from had.attention.cache_fixed import FixedCache, NotFixed
from had.attention.cache_layers import BinaryKeyLayer

log = logging.getLogger(__name__)

Capture = Callable[[Callable[[], ModelOutput]], Callable[[], ModelOutput]]
_TENSORS = ("input_ids", "attention_mask", "position_ids")
_HARMLESS = {*_TENSORS, "past_key_values", "use_cache", "return_dict", "logits_to_keep"}


@contextmanager
def decoding_graphs(model: PreTrainedModel) -> Iterator[None]:
    """Let a student on a Hopper GPU generate with CUDA graphs while the context lasts.

        with had.decoding_graphs(student):
            student.generate(**inputs)

    Steps of one token a sequence from a `BinaryKeyCache` are captured and replayed. All others run
    as ever: prompts, beams, layers that see a window only, and everything on other devices, whose
    kernels for decoding take no mask.

    Args:
        model: a student; one with an encoder generates as ever.
    """
    if not cuda_compile.runs_on(model.device):
        yield
        return
    with stepping(model, captured):
        yield


@contextmanager
def stepping(model: PreTrainedModel, capture: Capture) -> Iterator[None]:
    """As `decoding_graphs`, on any device.

    Args:
        model: a student.
        capture: makes of a function one that does the same work again.
    """
    own = vars(model).get("forward")  # as a library that wraps models may have left
    vars(model)["forward"] = DecodingGraphs(model.forward, capture)
    try:
        yield
    finally:
        del vars(model)["forward"]
        if own is not None:
            vars(model)["forward"] = own


def captured(function: Callable[[], ModelOutput]) -> Callable[[], ModelOutput]:
    """The function's work on the GPU as a graph; its results stay in their places."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = function()

    def replay() -> ModelOutput:
        graph.replay()
        return outputs

    return replay


class DecodingGraphs:
    """Stands for a model's forward: steps of decoding that recur are captured and replayed.

    Args:
        forward: the model's own.
        capture: as of `stepping`.
    """

    def __init__(self, forward: Callable[..., Any], capture: Capture) -> None:
        functools.update_wrapper(self, forward)  # generate() looks at its signature
        self._forward, self._capture = forward, capture
        self._buffers: list[int] = []
        self._step: _Step | None = None
        self._usable = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if args or not self._usable or not _is_step(kwargs):
            return self._forward(*args, **kwargs)
        cache = kwargs["past_key_values"]
        step = self._step_of(cache.layers)
        if step is None:
            return self._forward(**kwargs)
        try:
            step.prepare()
            return step.run(cache, {name: kwargs.get(name) for name in _TENSORS})
        except NotFixed as error:
            self._usable = False
            reason = str(error).partition("\n")[0]
            log.warning("this model cannot decode by CUDA graphs, which takes longer: %s", reason)
            return self._forward(**kwargs)

    def _step_of(self, layers: list[BinaryKeyLayer]) -> _Step | None:
        """The step for these buffers; None where they are new, as in a beam search all are."""
        if self._step is not None and self._step.fixed.holds(layers):
            return self._step
        buffers = [layer.key_buffer.data_ptr() for layer in layers]
        known, self._buffers, self._step = self._buffers, buffers, None
        if buffers == known:
            self._step = _Step(self._forward, FixedCache(layers), self._capture)
        return self._step


class _Step:
    """A step of decoding on buffers that stay: run once as it is, from then on as a graph."""

    def __init__(self, forward: Callable[..., Any], fixed: FixedCache, capture: Capture) -> None:
        batch, device = len(fixed.places.seen), fixed.places.seen.device
        self.fixed, self._forward, self._capture = fixed, forward, capture
        self._input_ids = torch.zeros(batch, 1, dtype=torch.int64, device=device)
        self._position_ids = torch.zeros(batch, 1, dtype=torch.int64, device=device)
        self._runs = 0
        self._replay: Callable[[], ModelOutput] = self._compute

    def prepare(self) -> None:
        """Capture the step once its first run has compiled and loaded everything.

        Raises:
            NotFixed: it cannot be captured; nothing has been computed.
        """
        if self._runs != 1:
            return
        try:
            self._replay = self._capture(self._compute)
        except RuntimeError as error:
            raise NotFixed(str(error)) from error

    def run(self, cache: BinaryKeyCache, given: Mapping[str, Tensor | None]) -> Any:
        """One token a sequence.

        Args:
            cache: whose buffers these are.
            given: input_ids (B, 1), position_ids (B or 1, 1) and perhaps attention_mask (B, S).
        """
        layers = cast(list[BinaryKeyLayer], cache.layers)
        self._place(layers[0].end, given)
        outputs = self._replay()
        self._runs += 1
        for layer in layers:
            layer.advance()
        mine = {key: x.clone() for key, x in outputs.items() if isinstance(x, Tensor)}
        return type(outputs)(**mine, past_key_values=cache)

    def _place(self, place: int, given: Mapping[str, Tensor | None]) -> None:
        places, mask = self.fixed.places, given["attention_mask"]
        places.seen[..., place + 1 :].fill_(False)  # perhaps there were more before
        allowed = places.seen[..., : place + 1]
        if mask is None:
            allowed.fill_(True)
        else:
            allowed.copy_(mask[:, None, None])
        places.next.fill_(place)
        self._input_ids.copy_(given["input_ids"])
        self._position_ids.copy_(given["position_ids"])

    def _compute(self) -> ModelOutput:
        self.fixed.places.look()
        return self._forward(
            input_ids=self._input_ids,
            attention_mask=self.fixed.places.mask,
            position_ids=self._position_ids,
            past_key_values=self.fixed,
            use_cache=True,
            return_dict=True,
        )


def _is_step(given: Mapping[str, Any]) -> bool:
    """Whether these are one token a sequence, behind others in a cache with room for it."""
    tokens, positions = given.get("input_ids"), given.get("position_ids")
    mask = given.get("attention_mask")
    return (
        _has_room(given.get("past_key_values"))
        and not torch.is_grad_enabled()
        and tokens is not None
        and tokens.shape[1:] == (1,)
        and positions is not None
        and positions.shape[1:] == (1,)
        and (mask is None or mask.dim() == 2)
        and given.get("return_dict") is not False
        and not any(given[name] for name in given.keys() - _HARMLESS)
    )


def _has_room(cache: Any) -> bool:
    """Whether it is a binary key cache with room for a token in every layer, all on one device."""
    return (
        type(cache) is BinaryKeyCache
        and all(
            type(layer) is BinaryKeyLayer
            and layer.is_initialized
            and layer.exact.count >= layer.recent
            and layer.end < layer.key_buffer.shape[2]
            for layer in cache.layers
        )
        and len({layer.key_buffer.device for layer in cache.layers}) == 1
    )
