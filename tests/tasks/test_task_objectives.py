"""Losses and labels by hand."""

import math

import pytest
import torch

from had.errors import HadError
from had.tasks.objectives import Classification, Regression
from had.tasks.reading import Rows
from had.tasks.splits import stratified_split


def rows(*labels: str) -> Rows:
    return Rows((["x"] * len(labels),), list(labels), range(2, 2 + len(labels)), "f.tsv")


def test_cross_entropy_is_float32_for_half_precision_logits() -> None:
    logits = torch.zeros(3, 4, dtype=torch.bfloat16)
    loss = Classification.learned(rows(*"abcd")).loss(logits, torch.tensor([0, 1, 3]))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(4))


def test_output_loss_is_the_teachers_kl_averaged_over_the_batch() -> None:
    teacher = torch.tensor([[0.75, 0.25], [0.5, 0.5]]).log()
    student = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log() + 3.0  # softmax ignores the shift
    expected = (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)) / 2
    loss = Classification.learned(rows("a", "b")).output_loss(student, teacher)
    assert loss.item() == pytest.approx(expected)


def test_regression_losses() -> None:
    objective = Regression()
    predictions = torch.tensor([[1.0], [3.0]])
    assert objective.loss(predictions, torch.tensor([2.0, 5.0])).item() == pytest.approx(2.5)
    assert objective.output_loss(predictions, predictions + 2).item() == pytest.approx(4.0)


def test_string_labels_are_numbered_in_sorted_order() -> None:
    objective = Classification.learned(rows("pos", "neg", "mixed", "neg"))
    assert objective.label_names == ["mixed", "neg", "pos"]
    assert objective.encode(rows("pos", "neg", "mixed")).tolist() == [2, 1, 0]


def test_whole_number_labels_are_sorted_by_size() -> None:
    assert Classification.learned(rows("10", "9", "-1", "x")).label_names == ["-1", "9", "10", "x"]


def test_unknown_label_names_line_and_known_ones() -> None:
    objective = Classification.declared({"0": "negative", "1": "positive"})
    with pytest.raises(HadError, match=r"f\.tsv:3: unknown label '2'; known labels: 0, 1"):
        objective.encode(rows("0", "2"))


@pytest.mark.parametrize("cell", ["", "high", "nan", "inf"])
def test_label_that_is_no_number(cell: str) -> None:
    with pytest.raises(HadError, match=r"f\.tsv:3: the label .* is not a finite number"):
        Regression().encode(rows("1.5", cell))


def test_empty_label_and_single_class() -> None:
    with pytest.raises(HadError, match=r"f\.tsv:3: the label is empty"):
        Classification.learned(rows("a", "", "b"))
    with pytest.raises(HadError, match=r"every row has the label 'a'"):
        Classification.learned(rows("a", "a"))


def test_split_keeps_shares_and_loses_nothing() -> None:
    strata = torch.tensor([0] * 50 + [1] * 10)
    train, evaluation = stratified_split(strata, 0.2, seed=1)
    assert sorted([*train.tolist(), *evaluation.tolist()]) == list(range(60))
    assert strata[evaluation].bincount().tolist() == [10, 2]
    again, _ = stratified_split(strata, 0.2, seed=1)
    other, _ = stratified_split(strata, 0.2, seed=2)
    assert torch.equal(train, again)
    assert not torch.equal(train, other)


def test_split_of_too_few_rows() -> None:
    with pytest.raises(HadError, match="too few"):
        stratified_split(torch.tensor([0, 1]), 0.1, seed=0)
