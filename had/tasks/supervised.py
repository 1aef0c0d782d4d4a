"""A task with an objective: everything but where its examples come from."""

from abc import abstractmethod
from dataclasses import dataclass, field

from torch import Tensor
from torchmetrics import Metric, MetricCollection

from had.tasks.base import Task
from had.tasks.objectives import OBJECTIVES, Objective


@dataclass(kw_only=True, eq=False)
class SupervisedTask(Task):
    """A classification or regression task.

    Attributes:
        objective: "classification" or "regression".
        metric_names: the metrics to report; empty for the objective's own choice. A `score` of
            "auto" is the first of them.
    """

    objective: str
    metric_names: list[str]
    _objective: Objective | None = field(default=None, init=False, repr=False)
    _has_read: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.objective in OBJECTIVES:
            default = OBJECTIVES[self.objective].default_metrics
            self.metric_names = list(self.metric_names) or list(default)
        if self.score == "auto" and self.metric_names:
            self.score = self.metric_names[0]
        super().__post_init__()

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.objective not in OBJECTIVES:
            return [*problems, f"task.objective={self.objective}: one of {', '.join(OBJECTIVES)}"]
        known = OBJECTIVES[self.objective].known_metrics
        problems += [
            f"task.metric_names: {name!r} is no metric of {self.objective}; known: "
            + ", ".join(known)
            for name in self.metric_names
            if name not in known
        ]
        if self.score not in self.metric_names:
            reported = ", ".join(self.metric_names)
            problems.append(f"task.score={self.score}: not among task.metric_names ({reported})")
        return problems

    def read(self) -> None:
        if self._has_read:
            return
        self._objective = self._load()
        self.metrics()  # a metric that does not fit the labels is refused now
        self._has_read = True

    @abstractmethod
    def _load(self) -> Objective:
        """Reads the examples and keeps them; returns the objective that their labels define."""

    @property
    def num_outputs(self) -> int:
        return self._known_objective().num_outputs

    @property
    def label_names(self) -> list[str]:
        return self._known_objective().label_names

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self._known_objective().loss(logits, labels)

    def output_loss(self, student: Tensor, teacher: Tensor, labels: Tensor | None) -> Tensor:
        return self._known_objective().output_loss(student, teacher)

    def metrics(self) -> MetricCollection:
        return self._known_objective().metrics(self.metric_names)

    def agreement(self) -> Metric | None:
        return self._known_objective().agreement()

    def _known_objective(self) -> Objective:
        assert self._objective is not None, "call read() first"
        return self._objective
