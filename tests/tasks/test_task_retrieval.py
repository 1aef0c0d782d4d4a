"""Generated texts are read back as a reader would: the question has one answer, where it should."""

import re
from collections.abc import Callable

import pytest
import torch

from had.errors import HadError
from had.tasks.base import EncodedDataset, Task, TaskData
from had.tasks.token_losses import IGNORED
from had.tasks.vocabulary import byte_tokenizer

Make = Callable[..., Task]

SMALL = (
    *("task.context=512", "task.eval_lengths=[256,512]", "task.eval_depths=[0,50,100]"),
    *("task.train_sequences=12", "task.eval_sequences=5"),
)
FACTS = {  # how a reader finds a fact, and the question at the end
    "passkey": (r"The pass key is ()(\d{5})\. R", r"What is the pass key\? ()The pass key is $"),
    "needle": (r"The number of (\w+) is (\d{5})\.", r"What is the number of (\w+)\? It is $"),
    "keyvalue": (r"(\d{4})=(\d{5});", r"\?(\d{4})=$"),
    "multikey": (r"The number of (\w+) is (\d{5})\.", r"What is the number of (\w+)\? It is $"),
}


def _generated(make_task: Make, name: str, *overrides: str) -> TaskData:
    lengths = ["task.eval_lengths=[512]"] if name == "multikey" else []
    task = make_task(f"retrieval/{name}", *SMALL, *lengths, *overrides)
    return task.encode(byte_tokenizer())


def _texts(data: EncodedDataset) -> list[tuple[str, str]]:
    """Of each sequence what is read before the answer, and the labels as text."""
    found = []
    for tokens, labels in zip(data.inputs["input_ids"], data.labels, strict=True):
        whole = bytes(tokens.tolist()) + bytes([max(0, int(labels[-1]))])
        answer = labels[labels != IGNORED]
        found.append((whole[: -len(answer)].decode(), bytes(answer.tolist()).decode()))
    return found


@pytest.mark.parametrize("name", FACTS)
def test_the_answer_to_the_question_is_in_the_text(make_task: Make, name: str) -> None:
    fact, question = (re.compile(pattern) for pattern in FACTS[name])
    for data in _generated(make_task, name).evaluation.values():
        for text, answer in _texts(data):
            asked = question.search(text)
            assert asked is not None, text
            answers = [value for key, value in fact.findall(text) if key == asked[1]]
            assert answers == [answer]


@pytest.mark.parametrize("name", FACTS)
def test_depth_and_length_are_those_asked_for(make_task: Make, name: str) -> None:
    fact, question = (re.compile(pattern) for pattern in FACTS[name])
    sets = _generated(make_task, name).evaluation
    for set_name, data in sets.items():
        if not set_name:
            continue
        length, depth = map(int, re.findall(r"\d+", set_name))
        assert data.inputs["input_ids"].shape[1] == length
        for text, _ in _texts(data):
            asked = question.search(text)
            assert asked is not None
            (where,) = [m.start() for m in fact.finditer(text) if m[1] == asked[1]]
            # Whole facts are moved, so a depth is exact to the length of what stands around it.
            assert where / asked.start() == pytest.approx(depth / 100, abs=0.3), set_name


def test_training_holds_texts_of_many_lengths_with_an_answer_each(make_task: Make) -> None:
    data = _generated(make_task, "passkey", "task.train_sequences=40").train
    assert data.inputs["input_ids"].shape == (40, 512)
    answers = (data.labels != IGNORED).sum(1)
    assert {*answers.tolist()} == {5, 10, 20}


def test_labels_are_the_next_tokens(make_task: Make) -> None:
    data = _generated(make_task, "keyvalue").train
    inside = data.labels[:, :-1] != IGNORED
    following = data.inputs["input_ids"][:, 1:]
    assert torch.equal(data.labels[:, :-1][inside], following[inside])


def test_a_seed_gives_the_same_texts_and_evaluation_has_its_own(make_task: Make) -> None:
    first, again = (_generated(make_task, "needle") for _ in range(2))
    other = _generated(make_task, "needle", "task.seed=1")
    assert torch.equal(first.train.inputs["input_ids"], again.train.inputs["input_ids"])
    assert not torch.equal(first.train.inputs["input_ids"], other.train.inputs["input_ids"])
    trained_on = {answer for _, answer in _texts(first.train)}
    evaluated = {answer for _, answer in _texts(first.evaluation[""])}
    assert not trained_on & evaluated


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.answer_digits=600"], "the answer is longer than task.context=512"),
        (["task.eval_lengths=[1024]"], "1024 is beyond task.context=512"),
        (["task.eval_depths=[120]"], "are percentages"),
        (["task.shortest=32"], "longer than a text of 32"),
    ],
)
def test_what_does_not_fit_is_refused(make_task: Make, overrides: list[str], message: str) -> None:
    with pytest.raises(Exception, match=message) as caught:
        _generated(make_task, "passkey", *overrides)
    assert isinstance(caught.value.__cause__ or caught.value, HadError)
