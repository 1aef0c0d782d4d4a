"""The factor of the dot product in decoding, which need not be formed again for every token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class RememberedGain:
    """A layer's gain, for as long as what it is formed from stays as it is.

    Nothing is remembered while gradients are asked for; nor while a CUDA graph is captured, which
    would outlive it and not see other weights. Copies, and what is read from a file, begin anew.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Form it again next time, as after changes that leave no trace in a tensor."""
        self._gain: Tensor | None = None
        self._sources: tuple[Tensor, ...] = ()  # held, so that no other tensor takes their place
        self._state: list[Any] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return RememberedGain, ()

    def of(self, sources: tuple[Tensor, ...], scale: float, form: Callable[[], Tensor]) -> Tensor:
        """The gain.

        Args:
            sources: tensors that it is formed from.
            scale: of the dot product, a part of it.
            form: forms it.
        """
        if torch.is_grad_enabled() or not all(map(_lasts, sources)):
            return form()
        state = [scale, *((id(x), x.data_ptr(), x._version) for x in sources)]
        if self._gain is None or self._state != state:
            with torch.inference_mode(False), torch.no_grad():
                self._gain = form()
            self._sources, self._state = sources, state
        return self._gain


def _lasts(source: Tensor) -> bool:
    """Whether it counts its changes, and what is formed from it now is for eager calls."""
    captured = source.is_cuda and torch.cuda.is_current_stream_capturing()
    return not (captured or source.is_inference())
