"""Generated texts are read back as a reader would: the question has one answer, where it should."""

import re
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

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
    "keyvalue": (r";(\d{4})=(\d{5})", r"\?(\d{4})=$"),
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


def _training_texts(data: EncodedDataset) -> Iterator[tuple[Tensor, Tensor]]:
    """Every text as the model sees it, and its labels."""
    for batch in data:
        yield from zip(batch["inputs"]["input_ids"], batch["labels"], strict=True)


def test_texts_grow_from_the_shortest_to_the_context(make_task: Make) -> None:
    data = _generated(make_task, "needle", "task.train_sequences=12").train
    shapes = [tuple(batch["labels"].shape) for batch in data]
    assert shapes == [(4, 128)] * 4 + [(2, 256)] * 4 + [(1, 512)] * 4


@pytest.mark.parametrize("name", FACTS)
def test_every_training_text_is_complete(make_task: Make, name: str) -> None:
    fact, question = (re.compile(pattern) for pattern in FACTS[name])
    data = _generated(make_task, name, "task.repeats=false", "task.curriculum=[]").train
    for tokens, labels in _training_texts(data):
        answer = bytes(labels[labels != IGNORED].tolist()).decode()
        text = bytes(tokens.tolist()).decode() + answer[-1]
        asked = question.search(text[:-5])
        assert asked is not None, text
        assert len(answer) == 5
        assert text.endswith(answer)
        assert [value for key, value in fact.findall(text) if key == asked[1]] == [answer]


def test_a_curriculum_has_its_lengths_and_digits(make_task: Make) -> None:
    """Lengths beyond the context are cut to it; without digits a stage has the task's."""
    stages = (
        "[{share:1,length:32,key_digits:1},{share:1,length:100,key_digits:3},{share:2,length:999}]"
    )
    data = _generated(make_task, "keyvalue", f"task.curriculum={stages}").train
    batches = [batch["inputs"]["input_ids"] for batch in data]
    shapes = [tuple(batch.shape) for batch in batches]
    assert shapes == [(16, 32)] * 3 + [(5, 100)] * 3 + [(1, 512)] * 6
    for batch, digits in zip(batches, [1] * 3 + [3] * 3 + [4] * 6, strict=True):
        for text in batch:
            keys = re.findall(r"(\d+)=", bytes(text.tolist()).decode())
            assert {len(key) for key in keys} == {digits}


def test_second_tellings_in_training_are_labels(make_task: Make) -> None:
    """In a text, a fact that stands there for the second time, and nothing else, is learned."""
    stages = "task.curriculum=[{share:1,length:64,key_digits:2},{share:1,length:512}]"
    data = _generated(make_task, "keyvalue", stages).train
    counts = set()
    for tokens, labels in _training_texts(data):
        text, known = bytes(tokens.tolist()).decode(), {}
        expected = torch.full_like(labels, IGNORED)
        for found in re.finditer(r"(\d+)=(\d{4,5})", text):
            first = found.start(2) - 1  # a label is the next token
            if found[1] in known:
                answer = known[found[1]]
                assert answer.startswith(found[2])
                expected[first : first + 5] = torch.tensor(list(answer.encode()))
            known[found[1]] = found[2]
        assert torch.equal(labels, expected)
        counts.add((len(labels), int((labels != IGNORED).sum()) // 5))
    # 65 tokens are a question of 9 and 6 facts, 513 a question of 11 and 45: two and 22 told again
    assert counts == {*((64, n) for n in (1, 2, 3)), *((512, n) for n in (1, 2, 3, 6, 12, 23))}


def test_evaluation_tells_every_fact_once_with_keys_of_full_length(make_task: Make) -> None:
    for data in _generated(make_task, "keyvalue").evaluation.values():
        assert ((data.labels != IGNORED).sum(1) == 5).all()
        for text, _ in _texts(data):
            keys = re.findall(r"(\d+)=\d", text)
            assert len({*keys}) == len(keys)
            assert {len(key) for key in keys} == {4}


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
        (["task.shortest=32", "task.curriculum=[]"], "longer than a text of 32"),
        (["task.curriculum=[{share:1,length:32}]"], "longer than a text of 32"),
        (["task.curriculum=[{share:1}]"], "task.curriculum.0: give length, as in"),
        (["task.curriculum=[{share:0,length:128}]"], "task.curriculum.0.share=0: must be a number"),
        (
            ["task.curriculum=[{share:1,length:1.5}]"],
            "task.curriculum.0.length=1.5: must be tokens",
        ),
        (
            ["task.curriculum=[{share:1,length:128,key_digits:0}]"],
            r"0.key_digits=0: must be 1 to 18",
        ),
        (["task.curriculum=[{share:1,length:128,keys:1}]"], "task.curriculum.0.keys: a stage has"),
        (["task.curriculum=[{share:1,length:128,key_digits:1}]", "task.names=[a]"], "remove it"),
        (["task.replay=1.5"], "task.replay=1.5: must be a share"),
        (["task.key_digits=19"], "task.key_digits=19: must be 1 to 18"),
        (["task.facts=0"], "task.facts=0: must be 1 or more, or null"),
        (["task.question='{who}?'"], "{who} is not known"),
    ],
)
def test_what_does_not_fit_is_refused(make_task: Make, overrides: list[str], message: str) -> None:
    with pytest.raises(Exception, match=message) as caught:
        _generated(make_task, "passkey", *overrides)
    assert isinstance(caught.value.__cause__ or caught.value, HadError)
