"""The attention module that adapters call in a student, one a layer."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from had.attention.backends import (
    AttentionCall,
    PackedCall,
    choose_backend,
    choose_packed_backend,
)
from had.attention.backends.base import ExactKeys
from had.attention.binarize import RELAXATIONS, SCALES, Relaxation
from had.attention.bits import pack_signs
from had.attention.divergence import AttentionTarget
from had.attention.functional import per_query_head
from had.attention.gain import RememberedGain
from had.attention.options import AttentionGeometry, AttentionOptions
from had.attention.recorded import full_precision_attention

log = logging.getLogger(__name__)


class HammingAttention(nn.Module):
    """One layer of Hamming attention: sigma, N, the current relaxation and the backend.

    It hangs as a child on the attention layer whose core it replaces, so that sigma travels in the
    model's state dict, and has no weights but those of its scales.

    Attributes:
        relaxation: what stands for the sign at present; shared by all layers of a model.
        target: a teacher layer's queries and keys; when set, `divergence` is computed as well.
        divergence: scalar left behind by the last forward with a target.
        calibrating: when True, forward passes feed the scales and stay in full precision.
    """

    def __init__(self, geometry: AttentionGeometry, options: AttentionOptions) -> None:
        super().__init__()
        self.geometry = geometry
        self.options = options
        self.query = SCALES[options.scale](geometry.heads)
        self.key = SCALES[options.scale](geometry.kv_heads)
        self.relaxation: Relaxation = self.final_relaxation
        self.calibrating = False
        self.target: AttentionTarget | None = None
        self.divergence: Tensor | None = None
        self._warned = False
        self._gain = RememberedGain()

    @property
    def final_relaxation(self) -> Relaxation:
        """What the layer computes with once training is over."""
        return RELAXATIONS[self.options.relaxation](clip=self.options.ste_clip)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        scale: float | None = None,
        dropout: float = 0.0,
    ) -> Tensor:
        """Attend.

        Args:
            query: (B, H, T, D), after rotary embedding and normalisation.
            key: (B, G, S, D), or int32 signs from a binary key cache (`had.attention.bits`).
            value: (B, G, S, V).
            mask: bool broadcastable to (B, H, T, S), True = allowed.
            bias: additive, broadcastable to (B, H, T, S).
            scale: of the dot product, default D ** -0.5.
            dropout: ignored, with one warning: the softmax over N keys has none.

        Returns:
            (B, H, T, V) in value's dtype; in query's where keys are bits.

        Raises:
            ValueError: the tensors do not have this layer's heads and head_dim, or keys are bits
                and this layer needs more than their signs.
        """
        self._check(query, key, dropout)
        scale = self.geometry.head_dim**-0.5 if scale is None else scale
        if key.dtype == torch.int32:
            return self._attend_to_bits(query, key, value, mask, bias, scale)
        real_keys = real_tokens(mask) if self._asks_what_is_real() else None
        # Only in self-attention are queries and keys the same tokens; a shorter query is all real.
        same = query.shape[2] == key.shape[2] and not self.geometry.is_cross
        real_queries = real_keys if same else None
        if self.calibrating:
            self.query.observe(query, real_queries)
            self.key.observe(key, real_keys)
            return full_precision_attention(query, key, value, mask=mask, bias=bias, scale=scale)
        call = self._call(query, key, value, mask, bias, scale, real_queries, real_keys)
        backend = choose_backend(self.options.backend, call)
        if self.target is None:
            return backend.attend(call)
        output, self.divergence = backend.distil(call, self.target, real_queries)
        return output

    def _call(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        bias: Tensor | None,
        scale: float,
        real_queries: Tensor | None,
        real_keys: Tensor | None,
    ) -> AttentionCall:
        with torch.autocast(query.device.type, enabled=False):
            sigma_query = self.query(query, real_queries)
            sigma_key = self.key(key, real_keys)
            return AttentionCall(
                query=self.units(query, sigma_query),
                key=self.units(key, sigma_key),
                value=value,
                n=self.options.topn,
                gain=scale * sigma_query * per_query_head(sigma_key, self.geometry.heads),
                mask=mask,
                bias=bias,
                signs=self.relaxation.exact_signs,
                weights=self.options.weights,
                exact=self._exact(query, key, scale),
            )

    def units(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Binarized queries or keys as the present relaxation has them, float32, in units of sigma.

        Args:
            x: queries or keys, (B, heads, L, D).
            sigma: their magnitude, broadcastable to x.
        """
        return self.relaxation(x.float(), sigma)

    @property
    def recent(self) -> int:
        """How many keys are scored in full precision: a row has a last key of its own if causal."""
        return 0 if self.geometry.is_cross else self.options.recent

    def _exact(self, query: Tensor, key: Tensor, scale: float) -> ExactKeys | None:
        return ExactKeys(query, key, scale, self.recent) if self.recent else None

    def _exact_beside(self, query: Tensor, words: Tensor, scale: float) -> ExactKeys | None:
        """The keys in full precision that came with the words of a binary key cache."""
        if not self.recent:
            return None
        keys = getattr(words, "exact", None)
        if keys is None:
            raise ValueError(
                f"{self.geometry.name}: the cache keeps no keys in full precision, and the last "
                f"{self.recent} are scored so; give had.BinaryKeyCache(..., recent={self.recent})"
            )
        return ExactKeys(query, keys, scale, self.recent, getattr(words, "apart", None))

    def _asks_what_is_real(self) -> bool:
        """Whether padding matters beyond the mask itself, which is as large as all scores."""
        measured = self.calibrating or self.query.per_sample or self.key.per_sample
        return measured or self.target is not None

    def _attend_to_bits(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        bias: Tensor | None,
        scale: float,
    ) -> Tensor:
        if (reason := self.why_not_bits()) is not None:
            raise ValueError(f"{self.geometry.name}: a binary key cache cannot serve it: {reason}")
        call = PackedCall(
            query=pack_signs(query),
            key=key,
            value=value,
            head_dim=self.geometry.head_dim,
            n=self.options.topn,
            gain=self._gain_of_bits(key, scale),
            mask=mask,
            bias=bias,
            exact=self._exact_beside(query, key, scale),
        )
        backend = choose_packed_backend(self.options.backend, call)
        return backend.attend_packed(call).to(query.dtype)

    def _gain_of_bits(self, words: Tensor, scale: float) -> Tensor:
        """The factor of the dot product of signs, whose magnitude no scale takes from them."""

        def form() -> Tensor:
            # Of float32 alone, and of operations that no autocast touches.
            sigma_key = per_query_head(self.key(words, None), self.geometry.heads)
            return scale * self.query(words, None) * sigma_key

        if self.training:
            return form()
        return self._gain.of((*self.query.tensors(), *self.key.tensors()), scale, form)

    def train(self, mode: bool = True) -> HammingAttention:
        """As every module's. A captured training step changes weights and leaves no trace of it."""
        self._gain.forget()
        return super().train(mode)

    def why_not_bits(self) -> str | None:
        """Why the signs of keys cannot stand for this layer's keys at present; None: they can."""
        if self.calibrating or not self.relaxation.exact_signs:
            stage = "calibration" if self.calibrating else type(self.relaxation).__name__
            return f"its keys are not signs at present ({stage})"
        if self.query.per_sample or self.key.per_sample:
            return f"scale={self.options.scale} measures the queries and keys of every sample"
        if self.options.weights != "softmax":
            return f"weights={self.options.weights} is not computed from bits"
        return None

    def _check(self, query: Tensor, key: Tensor, dropout: float) -> None:
        shape = (query.shape[1], key.shape[1], query.shape[3])  # a key of bits has its own width
        expected = (self.geometry.heads, self.geometry.kv_heads, self.geometry.head_dim)
        if shape != expected:
            raise ValueError(
                f"{self.geometry.name}: (heads, kv_heads, head_dim) = {shape}, built for {expected}"
            )
        if dropout and not self._warned:
            self._warned = True
            log.warning("attention dropout %g is ignored by Hamming attention", dropout)

    def extra_repr(self) -> str:
        g, o = self.geometry, self.options
        shape = f"heads={g.heads}, kv_heads={g.kv_heads}, head_dim={g.head_dim}"
        return f"{shape}, n={o.topn}, scale={o.scale}"


def real_tokens(mask: Tensor | None) -> Tensor | None:
    """bool (B or 1, 1, S, 1): a key is real if some query may attend to it; None means all are."""
    if mask is None:
        return None
    mask = mask.expand((1,) * (4 - mask.dim()) + mask.shape) if mask.dim() < 4 else mask
    # Rows first: what is left is small, while one head's map of a long text is not.
    return mask.any(dim=2).any(dim=1, keepdim=True).unsqueeze(-1)


def hamming_layers(model: nn.Module) -> list[HammingAttention]:
    """The student's attention modules in the order of the model's layers."""
    return [module for module in model.modules() if isinstance(module, HammingAttention)]


def recent_keys_of(student: nn.Module) -> int:
    """How many last keys a cache has to keep in full precision for a student's layers."""
    return max(layer.recent for layer in hamming_layers(student))


def set_relaxation(model: nn.Module, relaxation: Relaxation) -> None:
    """Give all layers of a student the same relaxation object."""
    for layer in hamming_layers(model):
        layer.relaxation = relaxation


def finish_relaxation(model: nn.Module) -> None:
    """Let all layers of a student compute with what hardware will see."""
    for layer in hamming_layers(model):
        layer.relaxation = layer.final_relaxation
