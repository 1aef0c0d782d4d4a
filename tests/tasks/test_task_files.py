"""A user's own files."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from had.errors import HadError
from had.tasks.base import Task

Make = Callable[..., Task]
Write = Callable[[str, str | bytes], Path]


def test_classification_with_two_files(
    make_task: Make, write: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    train = write("train.csv", "review,stars\na,good\nb,bad\nc,awful\n")
    dev = write("dev.jsonl", '{"stars": "bad", "review": "d"}\n')
    task = make_task(
        "files",
        f"task.path={train}",
        f"task.eval_path={dev}",
        "task.text=review",
        "task.label=stars",
    )
    data = task.encode(tokenizer)
    assert task.label_names == ["awful", "bad", "good"]
    assert task.num_outputs == 3
    assert data.train.labels.tolist() == [2, 1, 0]
    assert data.evaluation[""].labels.tolist() == [1]
    assert data.evaluation[""][0]["inputs"]["input_ids"][0, :3].tolist() == [1, 7, 2]
    assert task.score == "accuracy"
    assert list(task.metrics()) == ["accuracy", "macro_f1"]


def test_regression_on_pairs_with_a_split(
    make_task: Make, write: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    body = "".join(f"a\tb\t{row / 2}\n" for row in range(10))
    path = write("train.tsv", "left\tright\tscore\n" + body)
    task = make_task(
        "files",
        f"task.path={path}",
        "task.text=[left,right]",
        "task.label=score",
        "task.objective=regression",
        "task.eval_fraction=0.3",
    )
    data = task.encode(tokenizer)
    labels = data.train.labels.tolist() + data.evaluation[""].labels.tolist()
    assert sorted(labels) == [row / 2 for row in range(10)]
    assert len(data.evaluation[""]) == 3
    assert data.train[0]["inputs"]["input_ids"][0, :5].tolist() == [1, 4, 2, 5, 2]
    assert (task.num_outputs, task.label_names, task.score) == (1, [], "pearson")


def test_columns_by_index(make_task: Make, write: Write) -> None:
    path = write("train.csv", "x,a\ny,b\n" * 10)
    task = make_task(
        "files", f"task.path={path}", "task.header=false", "task.text=1", "task.label=0"
    )
    task.read()
    assert task.label_names == ["x", "y"]


def test_label_that_training_never_saw(make_task: Make, write: Write) -> None:
    train = write("train.csv", "text,label\na,x\nb,y\n")
    dev = write("dev.csv", "text,label\na,x\nb,z\n")
    task = make_task("files", f"task.path={train}", f"task.eval_path={dev}")
    with pytest.raises(HadError, match=rf"{dev}:3: unknown label 'z'; known labels: x, y"):
        task.read()


def test_missing_column(make_task: Make, write: Write) -> None:
    path = write("train.csv", "txt,label\na,x\nb,y\n")
    with pytest.raises(HadError, match=r"no column 'text'; there are: txt, label; did you mean"):
        make_task("files", f"task.path={path}").read()


def test_binary_f1_on_three_classes_is_refused_when_reading(make_task: Make, write: Write) -> None:
    path = write("train.csv", "text,label\n" + "a,x\nb,y\nc,z\n" * 10)
    task = make_task("files", f"task.path={path}", "task.metric_names=[f1]")
    with pytest.raises(HadError, match="f1 needs two classes, there are 3; use macro_f1"):
        task.read()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.text=[a,b,c]", "one column or two"),
        ("task.label=text", "the label is also a text column"),
        ("task.eval_fraction=0", r"task\.eval_fraction=0"),
    ],
)
def test_impossible_settings(make_task: Make, override: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        make_task("files", "task.path=x.csv", override)
