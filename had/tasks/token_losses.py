"""Losses and metrics of token sequences, a few thousand tokens at a time.

The logits of a long context are the largest tensor of a step. They exist once, in the model's own
precision; their float32 softmax exists for one chunk only, and is computed again for the gradient.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torchmetrics import Metric

IGNORED = -100  # label of tokens that are not predicted
_CHUNK = 2**25  # logits softened at once: 128 MiB in float32


def token_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over predicted tokens of the cross entropy in nats, a float32 scalar.

    Args:
        logits: (B, T, V), any floating dtype.
        labels: (B, T) integers, `IGNORED` where nothing is predicted.
    """
    total = _summed(_cross_entropy, logits.flatten(0, -2), labels.flatten().long())
    return total / (labels != IGNORED).sum().clamp_min(1)


def token_divergence(student: Tensor, teacher: Tensor, labels: Tensor | None) -> Tensor:
    """Mean over predicted tokens of KL(teacher || student) in nats, a float32 scalar.

    Args:
        student: logits (B, T, V), any floating dtype.
        teacher: as the student's.
        labels: (B, T) integers, `IGNORED` where nothing is predicted; None: all tokens are.
    """
    rows = student.flatten(0, -2)
    predicted = rows.new_ones(len(rows), dtype=torch.bool)
    if labels is not None:
        predicted = (labels != IGNORED).flatten()
    total = _summed(_divergence, rows, teacher.flatten(0, -2), predicted)
    return total / predicted.sum().clamp_min(1)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="sum")


def _divergence(student: Tensor, teacher: Tensor, predicted: Tensor) -> Tensor:
    ours, theirs = student.float().log_softmax(-1), teacher.float().log_softmax(-1)
    rows = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)
    return rows.masked_fill(~predicted, 0.0).sum()


def _summed(loss: Callable[..., Tensor], logits: Tensor, *others: Tensor) -> Tensor:
    """The loss summed over rows, chunk by chunk; the gradient recomputes what a chunk needs.

    Args:
        loss: of (rows, V) logits and as many rows of each of the others, a scalar.
        logits: (rows, V).
        others: (rows, ...) each.
    """
    size = max(1, _CHUNK // logits.shape[-1])
    if len(logits) <= size:
        return loss(logits, *others)
    parts = [
        checkpoint(loss, *chunk, use_reentrant=False, preserve_rng_state=False)
        for chunk in zip(*(each.split(size) for each in (logits, *others)), strict=True)
    ]
    return torch.stack(parts).sum()


class TokenMetrics(Metric):
    """Cross entropy of predicted tokens, in the units people quote it in.

    Args:
        bytes_per_token: of the text that is predicted.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    sums: list[Tensor]
    counts: list[Tensor]

    def __init__(self, bytes_per_token: float) -> None:
        super().__init__(sync_on_compute=False)
        self.bytes_per_token = bytes_per_token
        self.add_state("sums", [], dist_reduce_fx="cat")
        self.add_state("counts", [], dist_reduce_fx="cat")

    @torch.no_grad()
    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Adds a batch: logits (B, T, V), labels (B, T)."""
        self.sums.append(_summed(_cross_entropy, logits.flatten(0, -2), labels.flatten().long()))
        self.counts.append((labels != IGNORED).sum())

    def compute(self) -> dict[str, Tensor]:
        """`loss` in nats a token, `perplexity` a token, `byte_perplexity`, and `bits_per_byte`."""
        total = torch.stack(self.sums).cpu().double().sum()
        loss = total / torch.stack(self.counts).cpu().sum()
        a_byte = loss / self.bytes_per_token
        return {
            "loss": loss,
            "perplexity": loss.exp(),
            "byte_perplexity": a_byte.exp(),
            "bits_per_byte": a_byte / torch.log(torch.tensor(2.0, dtype=torch.float64)),
        }


class AnswerAccuracy(Metric):
    """Share of the sequences all of whose predicted tokens are right.

    For teacher-forced logits this is also the share of answers that greedy decoding gives: the
    first wrong token ends both.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    right: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__(sync_on_compute=False)
        self.add_state("right", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Counts a batch: logits (B, T, V), labels (B, T), `IGNORED` outside of the answers."""
        hits = (logits.argmax(-1) == labels) | (labels == IGNORED)
        self.right += hits.all(-1).sum()
        self.count += len(labels)

    def compute(self) -> Tensor:
        return self.right.cpu().double() / self.count.cpu()
