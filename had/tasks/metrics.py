"""Metrics as pure functions of sufficient statistics, and the two torchmetrics that gather those.

All arithmetic is float64 on the CPU, whatever the model computed in: a correlation over float32
sums is off in the fourth digit, and a score is what the comparison of two models hangs on.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

ClassScore = Callable[[Tensor], Tensor]
"""A function of a confusion matrix (classes, classes): rows are labels, columns predictions."""

PairScore = Callable[[Tensor, Tensor], Tensor]
"""A function of predictions (examples,) and labels (examples,)."""


def accuracy(confusion: Tensor) -> Tensor:
    """Share of the examples whose predicted class is the label."""
    return confusion.trace() / confusion.sum()


def f1(confusion: Tensor) -> Tensor:
    """F1 of class 1, the positive class of a binary task; 0 where nothing is positive."""
    return class_f1(confusion)[1].nan_to_num(0.0)


def macro_f1(confusion: Tensor) -> Tensor:
    """Mean F1 of the classes that occur among the labels or the predictions."""
    return class_f1(confusion).nanmean()


def class_f1(confusion: Tensor) -> Tensor:
    """F1 of every class, (classes,); NaN for a class that is neither a label nor predicted."""
    return 2 * confusion.diagonal() / (confusion.sum(0) + confusion.sum(1))


def matthews(confusion: Tensor) -> Tensor:
    """Matthews correlation for any number of classes; 0 where predictions or labels are constant.

    Gorodkin's form: the covariance of the two one-hot codes over the root of their variances.
    """
    total, labels, predictions = confusion.sum(), confusion.sum(1), confusion.sum(0)
    covariance = confusion.trace() * total - labels @ predictions
    variances = (total**2 - labels @ labels) * (total**2 - predictions @ predictions)
    return torch.where(variances > 0, covariance / variances.sqrt(), 0.0)


def pearson(predictions: Tensor, labels: Tensor) -> Tensor:
    """Pearson correlation; 0 where either side is constant (no association shown); NaN stays."""
    if _is_constant(predictions) or _is_constant(labels):
        return predictions.new_zeros(())
    x, y = predictions - predictions.mean(), labels - labels.mean()
    return ((x @ y) / (x.norm() * y.norm())).clamp(-1.0, 1.0)


def spearman(predictions: Tensor, labels: Tensor) -> Tensor:
    """Spearman correlation: Pearson's of the ranks, equal values sharing their mean rank."""
    return pearson(_ranks(predictions), _ranks(labels))


def _is_constant(values: Tensor) -> bool:
    """Compares the extremes: a variance of equal numbers need not come out as exactly zero."""
    return bool(values.max() == values.min())


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 1 (examples,), ties averaged; a NaN has no rank and stays NaN."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0)
    ranks = (last - (counts - 1) / 2)[inverse].to(values.dtype)
    return torch.where(values.isnan(), values, ranks)


class ClassMetric(Metric):
    """A score of class predictions, gathered in a confusion matrix."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    confusion: Tensor

    def __init__(self, score: ClassScore, num_classes: int) -> None:
        super().__init__(sync_on_compute=False)
        self.score = score
        self.num_classes = num_classes
        zeros = torch.zeros(num_classes, num_classes, dtype=torch.long)
        self.add_state("confusion", zeros, dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Counts a batch: logits (batch, classes), labels (batch,)."""
        cells = labels * self.num_classes + logits.argmax(-1)
        counts = cells.bincount(minlength=self.num_classes**2)
        self.confusion += counts.view_as(self.confusion).to(self.confusion.device)

    def compute(self) -> Tensor:
        return self.score(self.confusion.cpu().double())


class Agreement(ClassMetric):
    """A score of one model's predictions with another's in the place of labels."""

    def update(self, logits: Tensor, reference: Tensor) -> None:
        """Counts a batch: logits and the reference's logits, both (batch, classes)."""
        super().update(logits, reference.argmax(-1))


class PairMetric(Metric):
    """A score that needs every prediction and label at once."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    predictions: list[Tensor]
    labels: list[Tensor]

    def __init__(self, score: PairScore) -> None:
        super().__init__(sync_on_compute=False)
        self.score = score
        self.add_state("predictions", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Keeps a batch: logits (batch, 1) or (batch,), labels (batch,)."""
        self.predictions.append(logits.detach().reshape(labels.shape).float())
        self.labels.append(labels.float())

    def compute(self) -> Tensor:
        predictions, labels = dim_zero_cat(self.predictions), dim_zero_cat(self.labels)
        return self.score(predictions.cpu().double(), labels.cpu().double())


CLASS_SCORES: Mapping[str, ClassScore] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "f1": f1,
    "matthews": matthews,
}
PAIR_SCORES: Mapping[str, PairScore] = {"pearson": pearson, "spearman": spearman}
