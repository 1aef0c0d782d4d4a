"""What a task optimises and measures: classification or regression, as objects.

An objective knows how a label cell becomes a number, the two losses and the metrics. Tasks that
differ only in their data share it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from had.errors import HadError
from had.tasks.metrics import CLASS_SCORES, PAIR_SCORES, Agreement, ClassMetric, PairMetric


class Labelled(Protocol):
    """Examples whose labels are cells as their source writes them.

    Attributes:
        labels: one cell an example.
        source: the file, folder or data set, for messages.
    """

    labels: list[str]
    source: str

    def where(self, row: int) -> str:
        """What an example is called in messages."""


class Objective(ABC):
    """Labels, losses and metrics of one kind of prediction.

    Attributes:
        known_metrics: names of the metrics that fit it.
        default_metrics: those reported when the user names none.
        num_outputs: width of the model's output.
        label_names: names of the classes in order, empty for regression.
    """

    known_metrics: ClassVar[Sequence[str]]
    default_metrics: ClassVar[Sequence[str]]
    num_outputs: int
    label_names: list[str]

    @classmethod
    @abstractmethod
    def declared(cls, labels: Mapping[str, str]) -> Self:
        """The objective of a task that declares its labels: cell in the file to class name."""

    @classmethod
    @abstractmethod
    def learned(cls, rows: Labelled) -> Self:
        """The objective of a task whose labels are those of its training rows."""

    @abstractmethod
    def encode(self, rows: Labelled) -> Tensor:
        """The labels of the rows, (rows,); raises HadError naming file and line of a bad one."""

    @abstractmethod
    def strata(self, labels: Tensor) -> Tensor:
        """Group of each encoded label, (rows,), whose shares a random split has to keep."""

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The training loss in float32."""

    @abstractmethod
    def output_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The distance of the student's outputs from the teacher's in float32."""

    @abstractmethod
    def metric(self, name: str) -> Metric:
        """A fresh metric by name; raises HadError where it does not fit these labels."""

    def agreement(self) -> Metric | None:
        """A fresh metric of a student against its teacher; None: the losses say enough."""
        return None

    def metrics(self, names: Sequence[str]) -> MetricCollection:
        """Fresh metrics, in the order of the names.

        Compute groups stay off: they would merge metrics whose states merely happen to be equal
        after the first batch.
        """
        return MetricCollection({name: self.metric(name) for name in names}, compute_groups=False)


class Classification(Objective):
    """One of several classes: cross entropy, and KL divergence from the teacher."""

    known_metrics = tuple(CLASS_SCORES)
    default_metrics = ("accuracy", "macro_f1")

    def __init__(self, labels: Mapping[str, str]) -> None:
        """Takes the cells of a file with the names of their classes; their order numbers them."""
        self.label_names = [str(name) for name in labels.values()]
        self.num_outputs = len(self.label_names)
        self._indices = {str(cell): index for index, cell in enumerate(labels)}

    @classmethod
    def declared(cls, labels: Mapping[str, str]) -> Self:
        if len(labels) < 2:
            raise HadError(f"task.labels={dict(labels)}: classification needs two classes or more")
        return cls(labels)

    @classmethod
    def learned(cls, rows: Labelled) -> Self:
        if "" in rows.labels:
            raise HadError(f"{rows.where(rows.labels.index(''))}: the label is empty")
        cells = sorted(set(rows.labels), key=_natural_order)
        if len(cells) < 2:
            raise HadError(
                f"{rows.source}: every row has the label {cells[0]!r}; "
                "classification needs two classes or more"
            )
        return cls({cell: cell for cell in cells})

    def encode(self, rows: Labelled) -> Tensor:
        try:
            return torch.tensor([self._indices[cell] for cell in rows.labels])
        except KeyError as error:
            cell = error.args[0]
            where, known = rows.where(rows.labels.index(cell)), ", ".join(self._indices)
            raise HadError(f"{where}: unknown label {cell!r}; known labels: {known}") from None

    def strata(self, labels: Tensor) -> Tensor:
        return labels

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), labels)

    def output_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """KL(teacher || student) of the softmax, averaged over the batch."""
        log_student = F.log_softmax(student.float(), dim=-1)
        log_teacher = F.log_softmax(teacher.float(), dim=-1)
        return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)

    def metric(self, name: str) -> Metric:
        if name == "f1" and self.num_outputs != 2:
            raise HadError(
                f"task.metric_names: f1 needs two classes, there are {self.num_outputs}; "
                "use macro_f1"
            )
        return ClassMetric(CLASS_SCORES[name], self.num_outputs)

    def agreement(self) -> Metric:
        """How often both predict the same class."""
        return Agreement(CLASS_SCORES["accuracy"], self.num_outputs)


class Regression(Objective):
    """One number: mean squared error, from the labels and from the teacher."""

    known_metrics = tuple(PAIR_SCORES)
    default_metrics = ("pearson", "spearman")
    num_outputs = 1

    def __init__(self) -> None:
        self.label_names = []

    @classmethod
    def declared(cls, labels: Mapping[str, str]) -> Self:
        if labels:
            raise HadError(f"task.labels={dict(labels)}: regression has no classes, leave it empty")
        return cls()

    @classmethod
    def learned(cls, rows: Labelled) -> Self:
        return cls()

    def encode(self, rows: Labelled) -> Tensor:
        values = [_number(cell, rows, row) for row, cell in enumerate(rows.labels)]
        return torch.tensor(values, dtype=torch.float32)

    def strata(self, labels: Tensor) -> Tensor:
        return torch.zeros_like(labels, dtype=torch.long)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.mse_loss(logits.float().reshape(labels.shape), labels.float())

    def output_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean squared difference of the two outputs."""
        return F.mse_loss(student.float(), teacher.float())

    def metric(self, name: str) -> Metric:
        return PairMetric(PAIR_SCORES[name])


OBJECTIVES: Mapping[str, type[Objective]] = {
    "classification": Classification,
    "regression": Regression,
}


def _natural_order(cell: str) -> tuple[bool, int, str]:
    """Whole numbers by size and before words, so that the label 10 comes after 9."""
    digits = cell.removeprefix("-")
    is_number = digits.isascii() and digits.isdigit()
    return (not is_number, int(cell) if is_number else 0, cell)


def _number(cell: str, rows: Labelled, row: int) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if value != value or abs(value) == float("inf"):
        raise HadError(f"{rows.where(row)}: the label {cell!r} is not a finite number")
    return value
