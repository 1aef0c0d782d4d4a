"""What a task is: it owns its data, its losses and its metrics, and knows nothing of models."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchmetrics import Metric, MetricCollection

from had.errors import HadError
from had.tasks.mixing import MixingPlan
from had.tasks.order import Order

Batch = dict[str, Any]
"""``{"inputs": dict[str, Tensor], "labels": Tensor}``: inputs are the model's keyword arguments."""


class EncodedDataset(Dataset[Batch]):
    """All examples of a data set as tensors in memory.

    A batch is a slice of them, so a loader needs neither workers nor collation: give it
    ``collate_fn=identity`` and it asks for whole batches through ``__getitems__``.

    Attributes:
        inputs: name to tensor of shape (examples, ...), in a compact dtype.
        labels: (examples,) int64 classes or float32 values.
        workers: processes that should prepare batches, for sets whose batches are costly.
        order: in which training takes the examples.
    """

    workers = 0
    order: Order = Order()

    def __init__(self, inputs: dict[str, Tensor], labels: Tensor) -> None:
        assert all(len(column) == len(labels) for column in inputs.values())
        self.inputs = inputs
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        """One example as a batch of size 1."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")  # also what ends a for loop
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        rows = torch.as_tensor(indices, dtype=torch.long)
        inputs = {name: column[rows] for name, column in self.inputs.items()}
        return {"inputs": self.prepare(inputs), "labels": self.labels[rows]}

    def prepare(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Turns the stored columns of one batch into what the model takes."""
        return inputs


def identity(batch: Batch) -> Batch:
    """The ``collate_fn`` for an `EncodedDataset`: its batches arrive collated."""
    return batch


@dataclass(frozen=True)
class OnDevice:
    """What remains to be done with a batch on the device where it has arrived: here nothing.

    Its representation names all of its settings: they are part of what determines a teacher.
    """

    def __call__(self, batch: Batch, draw: int | None = None) -> Batch:
        """Finish a batch.

        Args:
            batch: as the data set gave it, its tensors on the device.
            draw: in training, the seed of whatever is random; None in evaluation: nothing is.
        """
        return batch


FINISHED = OnDevice()
"""For batches that are what the model takes when they leave the loader."""


@dataclass
class TaskData:
    """What a task gives to training and evaluation.

    Attributes:
        train: the training examples.
        evaluation: by name; "" is the main set, whose metrics keep their bare names, and any other
            name becomes a prefix (``mismatched/accuracy``).
        on_device: applied to every batch of either, outside of captured steps.
    """

    train: EncodedDataset
    evaluation: dict[str, EncodedDataset]
    on_device: OnDevice = FINISHED


class PreprocessorSource(Protocol):
    """What a task may ask of a model before there are weights."""

    def preprocessor(self) -> Any:
        """The model's own tokenizer or image preprocessor; HadError where there is none."""

    def decoder_start(self) -> int | None:
        """The token that a decoder beside an encoder begins with; None: not known."""


@dataclass(kw_only=True, eq=False)
class Task(ABC):
    """A task: its settings are its YAML file, key for key; constructing one touches no data.

    Attributes:
        head: what the model must have on top, as `had.models` names it.
        takes_preprocessor: whether `encode` needs the model's; without, any model will do.
        length_key: the setting that `positions` comes from, for messages.
        plain_metrics: metrics that are no shares, so that tables show them as they are.
        name: what the task is called in records and tables.
        modality: "text" or "image"; decides which kind of preprocessor `encode` is given.
        score: the metric that counts.
        topn: recommended N, the keys a query keeps.
        epochs: passes over the training set, for the teacher and for the student.
        learning_rate: peak learning rate, for both.
        batch_size: training examples a step.
        eval_batch_size: examples a step in evaluation.
    """

    head: ClassVar[str] = "classification"
    takes_preprocessor: ClassVar[bool] = True
    length_key: ClassVar[str] = "context"
    plain_metrics: ClassVar[frozenset[str]] = frozenset()

    name: str
    modality: str
    score: str
    topn: int
    epochs: float
    learning_rate: float
    batch_size: int
    eval_batch_size: int

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            HadError: naming every setting that cannot be, all at once.
        """
        problems = self.problems()
        if problems:
            raise HadError("\n".join(problems))

    def problems(self) -> list[str]:
        """One sentence for each impossible setting; subclasses add theirs to it."""
        sizes = ("topn", "epochs", "learning_rate", "batch_size", "eval_batch_size")
        return [
            f"task.{key}={getattr(self, key)!r}: must be a number greater than 0"
            for key in sizes
            if not _is_positive(getattr(self, key))
        ]

    @abstractmethod
    def read(self) -> None:
        """Finds and parses all files and checks every label, before any weights are touched.

        May be called again; only the first call reads.

        Raises:
            HadError: a file is missing, empty or malformed, or a label is not known.
        """

    def preprocessor(self, source: PreprocessorSource) -> Any:
        """What `encode` is to be given: the model's own preprocessor, unless a task brings one."""
        return source.preprocessor() if self.takes_preprocessor else None

    @property
    def positions(self) -> int | None:
        """Tokens of an example, which the model must have positions for; None: `encode` checks."""
        return None

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """Width of the model's output: classes, 1 for regression, tokens (after `encode`)."""

    @property
    @abstractmethod
    def label_names(self) -> list[str]:
        """Names of the classes in order, empty for regression (after `read`)."""

    @abstractmethod
    def encode(self, preprocessor: Any) -> TaskData:
        """Turns what was read into tensors, reading first if nobody has.

        Args:
            preprocessor: a transformers tokenizer (text) or an image preprocessor.
        """

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The training loss, a float32 scalar.

        Args:
            logits: (batch, num_outputs), any floating dtype; of a language model (batch, tokens,
                num_outputs), and so below.
            labels: as in the batches.
        """

    def loss_count(self, labels: Tensor) -> Tensor | int:
        """Over how many things `loss` is a mean; here the examples.

        Processes that share a batch weigh their losses by it.
        """
        return len(labels)

    def output_count(self, labels: Tensor) -> Tensor | int:
        """Over how many things `output_loss` is a mean; here as `loss`."""
        return self.loss_count(labels)

    @abstractmethod
    def output_loss(self, student: Tensor, teacher: Tensor, labels: Tensor | None) -> Tensor:
        """How far the student's outputs are from the teacher's, a float32 scalar.

        Args:
            student: (batch, num_outputs), any floating dtype.
            teacher: as the student's.
            labels: as in the batches, None without: they say which outputs the teacher has learned.
        """

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Fresh metrics: ``update(logits, labels)`` batch by batch, ``compute()`` at the end.

        Values are fractions in 0..1 (-1..1 for correlations). They never synchronise between
        processes: every process evaluates the whole set.
        """

    def mix(self, batch: Batch, plan: MixingPlan) -> Batch:
        """New examples from those of a training batch, for the teacher to answer.

        Args:
            batch: inputs and labels, as `OnDevice` finished them.
            plan: who is mixed with whom, on the device of the batch.

        Returns:
            Inputs of the same names and shapes, and their labels; without labels where nobody knows
            what a mixture would be called. Here, for tasks that know no way to mix, the same batch.
        """
        return batch

    def agreement(self) -> Metric | None:
        """A fresh metric of the student against its teacher, in 0..1; None for no such figure.

        ``update(student logits, teacher logits)`` batch by batch, as with `metrics`.
        """
        return None

    def points(self, metrics: dict[str, float]) -> float:
        """The task's score in points of 100, from the metrics of its main evaluation set."""
        return 100.0 * float(metrics[self.score])

    def compared(self, metrics: dict[str, float]) -> dict[str, float]:
        """The `scores` that follow from `teacher/<metric>` and `student/<metric>`."""
        of = {
            role: {k.removeprefix(f"{role}/"): v for k, v in metrics.items() if k.startswith(role)}
            for role in ("teacher", "student")
        }
        return self.scores(of["teacher"], of["student"])

    def scores(self, teacher: dict[str, float], student: dict[str, float]) -> dict[str, float]:
        """How far the student is behind its teacher, by the metrics of their main evaluation set.

        Returns:
            `score/teacher`, `score/student` and `score/drop`, which is the larger the worse the
            student is, in points of 100.
        """
        ours, theirs = self.points(student), self.points(teacher)
        return {"score/teacher": theirs, "score/student": ours, "score/drop": theirs - ours}


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
