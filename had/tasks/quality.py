"""QuALITY: questions on stories of thousands of words, four answers each; chance is 25 %."""

import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from had.errors import HadError
from had.tasks.base import EncodedDataset, PreprocessorSource, Task, TaskData
from had.tasks.language import CausalTask
from had.tasks.quality_files import OPTIONS, Question, read_questions
from had.tasks.splits import fraction_problems, stratified_split
from had.tasks.token_losses import IGNORED
from had.tasks.vocabulary import Document

logger = logging.getLogger(__name__)

Choices = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From logits and labels of a batch to (B, OPTIONS) scores and (B,) right options."""


@dataclass(kw_only=True, eq=False)
class QualityTask(Task):
    """What both ways of answering share: the questions, the losses and the metrics of choices.

    Attributes:
        folder: where the files are.
        train_files: the first of these that is there is trained on.
        eval_files: the first of these that is there is evaluated on.
        eval_fraction: without a training file, this share of the articles is for evaluation and
            the others are trained on; never official.
        split_seed: of that division.
    """

    folder: str
    train_files: list[str]
    eval_files: list[str]
    eval_fraction: float
    split_seed: int
    _train: list[Question] = field(default_factory=list, init=False, repr=False)
    _held_out: list[Question] = field(default_factory=list, init=False, repr=False)

    def problems(self) -> list[str]:
        problems = super().problems() + fraction_problems("eval_fraction", self.eval_fraction)
        if self.score != "accuracy":
            problems.append(f"task.score={self.score}: must be accuracy")
        return problems

    def read(self) -> None:
        if self._train:
            return
        held_out = self._first(self.eval_files)
        if held_out is None:
            raise HadError(
                f"{self.name}: none of {', '.join(self.eval_files)} in {self.folder}; put "
                "QuALITY's JSON lines there, or give task.folder and task.eval_files=[<file>]"
            )
        train = self._first(self.train_files)
        if train is not None:
            self._train, self._held_out = read_questions(train), read_questions(held_out)
        else:
            self._train, self._held_out = self._divided(read_questions(held_out))
            logger.warning(
                "%s: there is no training file, so %d of the questions of %s are trained on and %d "
                "evaluated: no official score",
                *(self.name, len(self._train), held_out, len(self._held_out)),
            )

    def _first(self, names: Sequence[str]) -> Path | None:
        files = [Path(self.folder).expanduser() / name for name in names]
        return next((file for file in files if file.is_file()), None)

    def _divided(self, questions: list[Question]) -> tuple[list[Question], list[Question]]:
        """By articles, so that no text is seen before its evaluation."""
        articles = list(dict.fromkeys(question.article for question in questions))
        _, chosen = stratified_split(
            torch.zeros(len(articles)), self.eval_fraction, self.split_seed
        )
        held_out = {articles[index] for index in chosen.tolist()}
        train = [question for question in questions if question.article not in held_out]
        return train, [question for question in questions if question.article in held_out]

    def check_room(
        self, questions: Sequence[Question], asked: Sequence[str], tokenizer: Any, max_length: int
    ) -> None:
        """Refuse what stands before an article, of which nothing is cut, if it leaves no room.

        Args:
            questions: named in the message.
            asked: the text before the article of each of them.
            tokenizer: a transformers tokenizer.
            max_length: tokens of this text and the article, special tokens included.

        Raises:
            HadError: the longest one takes all of max_length.
        """
        tokens = tokenizer(list(asked), add_special_tokens=False)["input_ids"]
        length, longest = max((len(each), index) for index, each in enumerate(tokens))
        length += tokenizer.num_special_tokens_to_add(pair=True)
        if length >= max_length:
            raise HadError(
                f"task.max_length={max_length}: {questions[longest]} takes {length} tokens before "
                f"its article begins; give {length + 1} or more, or shorten the question"
            )

    @abstractmethod
    def choices(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What a batch's logits say for each option: (B, OPTIONS) float32, and the right ones."""

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy of the right option among the four."""
        return F.cross_entropy(*self.choices(logits, labels))

    def loss_count(self, labels: Tensor) -> int:
        """The questions, also where labels are tokens."""
        return len(labels)

    def metrics(self) -> MetricCollection:
        """Accuracy, and beside it what guessing gives."""
        return MetricCollection({"choices": ChoiceAccuracy(self.choices)})


class ChoiceAccuracy(Metric):
    """Share of questions whose best option is the right one.

    Args:
        choices: reads scores and right options out of a batch's logits and labels.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    right: Tensor
    count: Tensor

    def __init__(self, choices: Choices) -> None:
        super().__init__(sync_on_compute=False)
        self.choices = choices
        self.add_state("right", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Counts a batch, logits and labels as the task's."""
        scores, answers = self.choices(logits, labels)
        self.right += (scores.argmax(-1) == answers).sum()
        self.count += len(answers)

    def compute(self) -> dict[str, Tensor]:
        share = self.right.cpu().double() / self.count.cpu()
        return {"accuracy": share, "chance": torch.full_like(share, 1 / OPTIONS)}


class ChoiceDataset(EncodedDataset):
    """Questions with their options: a batch of B questions is B * OPTIONS sequences."""

    def prepare(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: column.flatten(0, 1).long() for name, column in inputs.items()}


@dataclass(kw_only=True, eq=False)
class EncoderQualityTask(QualityTask):
    """An encoder reads each option with the question and the article, and gives it one logit.

    That is one number a sequence, four sequences a question. A model of multiple choice keeps its
    head, any other gets that of a regression.

    Attributes:
        max_length: tokens of question, option and article; the article is cut at its end.
    """

    head: ClassVar[str] = "choice"

    max_length: int

    @property
    def num_outputs(self) -> int:
        return 1

    @property
    def label_names(self) -> list[str]:
        return []

    def encode(self, preprocessor: Any) -> TaskData:
        self.read()
        if preprocessor.pad_token_id is None or self.max_length > preprocessor.model_max_length:
            raise HadError(
                f"task.max_length={self.max_length}: the model takes "
                f"{preprocessor.model_max_length} tokens, and must have a padding token"
            )
        train, held_out = (
            self._encode(part, preprocessor) for part in (self._train, self._held_out)
        )
        return TaskData(train, {"": held_out})

    def _encode(self, questions: Sequence[Question], tokenizer: Any) -> ChoiceDataset:
        each = [question for question in questions for _ in question.options]
        asked = [f"{q.question} {option}" for q in questions for option in q.options]
        self.check_room(each, asked, tokenizer, self.max_length)
        encoded = tokenizer(
            asked,
            [question.article for question in each],
            truncation="only_second",
            max_length=self.max_length,
            padding="max_length",
            return_tensors="pt",
        )
        shape = (len(questions), OPTIONS, self.max_length)
        inputs = {name: column.view(shape).to(torch.int32) for name, column in encoded.items()}
        return ChoiceDataset(inputs, torch.tensor([q.answer for q in questions]))

    def choices(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return logits.float().view(-1, OPTIONS), labels

    def output_loss(self, student: Tensor, teacher: Tensor, labels: Tensor | None) -> Tensor:
        """KL(teacher || student) over the options, mean over questions."""
        ours, theirs = (
            logits.float().view(-1, OPTIONS).log_softmax(-1) for logits in (student, teacher)
        )
        return F.kl_div(ours, theirs, reduction="batchmean", log_target=True)


@dataclass(kw_only=True, eq=False)
class LikelihoodQualityTask(QualityTask, CausalTask):
    """A language model reads article, question and an option: the likeliest option is its answer.

    An option's score is the mean log-likelihood of its tokens: short ones have no advantage.

    Attributes:
        prompt: what stands between article and option, with {question} in it.
    """

    prompt: str

    def encode(self, preprocessor: Any) -> TaskData:
        self.read()
        self._num_tokens = len(preprocessor)
        train, held_out = (
            self._encode(part, preprocessor) for part in (self._train, self._held_out)
        )
        return TaskData(train, {"": held_out})

    def _encode(self, questions: Sequence[Question], tokenizer: Any) -> ChoiceDataset:
        """input_ids (questions, OPTIONS, T); labels (questions, OPTIONS, 1 + T).

        The first label says whether the option is right, the others are its tokens.
        """
        tokens = torch.full((len(questions), OPTIONS, self.context + 1), IGNORED, dtype=torch.int32)
        labels = tokens.clone()
        articles: dict[str, Tensor] = {}
        for row, question in enumerate(questions):
            if question.article not in articles:
                articles[question.article] = self._tokens(question.article, tokenizer)
            article = articles[question.article]
            prompt = self._tokens(self.prompt.format(question=question.question), tokenizer)
            for index, option in enumerate(question.options):
                answer = self._tokens(f" {option}", tokenizer)
                room = self._room(question, len(prompt) + len(answer), len(article))
                tokens[row, index] = torch.cat([article[:room], prompt, answer])
                labels[row, index, 0] = index == question.answer
                labels[row, index, -len(answer) :] = answer
        return ChoiceDataset({"input_ids": tokens[..., :-1].contiguous()}, labels)

    def _room(self, question: Question, asked: int, article: int) -> int:
        """Tokens of the article that fit before a question with an option."""
        room = self.context + 1 - asked
        if not 0 <= room <= article:
            raise HadError(
                f"task.context={self.context}: {question} takes {asked} tokens with an option and "
                f"its article {article}; give a context between them"
            )
        return room

    def _tokens(self, text: str, tokenizer: Any) -> Tensor:
        document = Document("a question", text.encode())
        return torch.from_numpy(self._vocabulary.tokens(tokenizer, document))

    def choices(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        targets = labels[..., 1:].flatten(0, 1).long()
        asked = targets != IGNORED
        likelihood = logits[asked].float().log_softmax(-1)
        chosen = likelihood.gather(-1, targets[asked][:, None]).squeeze(-1)
        sums = chosen.new_zeros(asked.shape).masked_scatter(asked, chosen).sum(-1)
        return (sums / asked.sum(-1)).view(-1, OPTIONS), labels[..., 0].argmax(-1)

    def preprocessor(self, source: PreprocessorSource) -> Any:
        self.read()
        articles = dict.fromkeys(question.article for question in self._train)
        documents = [Document("an article", article.encode()) for article in articles]
        return self._vocabulary.tokenizer(source.preprocessor, documents)
