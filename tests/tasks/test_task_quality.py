"""QuALITY in its three forms, and both ways of answering."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from had.errors import HadError
from had.tasks.base import Task
from had.tasks.quality_files import Question, plain_text, read_questions
from had.tasks.token_losses import IGNORED
from had.tasks.vocabulary import byte_tokenizer

Make = Callable[..., Task]
Write = Callable[[str, str | bytes], Path]

OPTIONS = ("red", "green", "blue", "grey")
WANTED = Question("The sky was blue.", "What colour?", OPTIONS, 2)
OFFICIAL = {
    "article": "<p>The sky <b>was</b>\nblue.</p>",
    "questions": [
        {"question": "What colour?", "options": list(OPTIONS), "gold_label": 3},
        {"question": "Without a label?", "options": list(OPTIONS)},
    ],
}
COLLECTED = {
    "article": ["<p>The sky\n", "was blue.</p>"],
    "question1": "What colour?",
    **{f"question1option{i + 1}": f"{option} " for i, option in enumerate(OPTIONS)},
    "question1_gold_label": 3,
}
LEVAL = {
    "input": "The   sky was\nblue.",
    "instructions": ["What colour?\n\n (A) red \n (B) green \n (C) blue \n (D) grey "],
    "outputs": ["(C) blue"],
}


@pytest.mark.parametrize("record", [OFFICIAL, COLLECTED, LEVAL])
def test_every_form_gives_the_same_question(write: Write, record: dict[str, object]) -> None:
    assert read_questions(write("q.jsonl", json.dumps(record))) == [WANTED]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"q\.jsonl:1: not valid JSON"),
        ('{"text": 1}', r"q\.jsonl:1: none of questions, question1, instructions"),
        (json.dumps({**LEVAL, "outputs": ["(E) none"]}), r"q\.jsonl:1: a question is damaged"),
        (json.dumps({**COLLECTED, "question1_gold_label": 5}), "the right one is number 5"),
        ("", r"q\.jsonl: there is no question"),
    ],
)
def test_a_damaged_file_is_named_with_the_line(write: Write, content: str, message: str) -> None:
    with pytest.raises(HadError, match=message):
        read_questions(write("q.jsonl", content))


def test_text_without_html_keeps_its_signs() -> None:
    assert plain_text("1 < 2\n and  3 > 2") == "1 < 2 and 3 > 2"


def _articles(write: Write, count: int) -> None:
    """L-Eval records of one question each, about stories that differ."""
    lines = [json.dumps({**LEVAL, "input": f"a b c d {i} " * 20}) for i in range(count)]
    write("quality_sample/leval_quality_15docs_202q.jsonl", "\n".join(lines))


def test_without_a_training_file_articles_are_divided(make_task: Make, write: Write) -> None:
    _articles(write, 6)
    task = make_task("quality")
    task.read()
    train, held_out = (
        {question.article for question in part}
        for part in (task._train, task._held_out)  # type: ignore[attr-defined]
    )
    assert (len(train), len(held_out)) == (3, 3)
    assert not train & held_out


def test_an_encoder_reads_question_option_and_article(
    make_task: Make, write: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    _articles(write, 4)
    task = make_task("quality", "task.max_length=24")
    batch = task.encode(tokenizer).train.__getitems__([0, 1])
    assert batch["inputs"]["input_ids"].shape == (8, 24)
    assert batch["inputs"]["attention_mask"].all()  # the article fills what is left
    assert batch["labels"].tolist() == [2, 2]


def test_a_question_that_leaves_no_room_for_its_article_is_named(
    make_task: Make, write: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    """[CLS] What colour ? red [SEP] and the last [SEP] are 7 tokens."""
    _articles(write, 4)
    message = (
        r"task\.max_length=7: \S*docs_202q\.jsonl:\d: the question 'What colour\?' takes 7 tokens "
        "before its article begins; give 8 or more"
    )
    with pytest.raises(HadError, match=message):
        make_task("quality", "task.max_length=7").encode(tokenizer)
    batch = make_task("quality", "task.max_length=8").encode(tokenizer).train.__getitems__([0])
    assert batch["inputs"]["attention_mask"].all()


def test_choices_of_an_encoder(make_task: Make) -> None:
    task = make_task("quality")
    logits = torch.tensor([0.0, 0, 5, 0, 5, 0, 0, 0])[:, None]
    labels = torch.tensor([2, 2])
    metrics = task.metrics()
    metrics.update(logits, labels)
    assert {name: float(value) for name, value in metrics.compute().items()} == {
        "accuracy": 0.5,
        "chance": 0.25,
    }
    wanted = torch.nn.functional.cross_entropy(logits.view(2, 4), labels)
    torch.testing.assert_close(task.loss(logits, labels), wanted)
    assert float(task.output_loss(logits, logits, None)) == pytest.approx(0.0, abs=1e-6)


LM = ("task.tokenizer=bytes", "task.context=64")


def test_a_language_model_reads_the_beginning_of_the_article(make_task: Make, write: Write) -> None:
    _articles(write, 4)
    task = make_task("quality_lm", *LM)
    batch = task.encode(byte_tokenizer()).train.__getitems__([0])
    text = bytes(batch["inputs"]["input_ids"][1].tolist()).decode()
    assert text.startswith("a b c d")
    assert text.endswith("\nQuestion: What colour?\nAnswer: gree")  # the last token is a label only
    answers = [row[row != IGNORED] for row in batch["labels"][0, :, 1:]]
    assert [bytes(answer.tolist()).decode() for answer in answers] == [f" {o}" for o in OPTIONS]


def test_the_likeliest_option_a_token_is_the_answer(make_task: Make, write: Write) -> None:
    """A model that always expects the letters of "blue", whatever stands before them."""
    _articles(write, 4)
    task = make_task("quality_lm", *LM)
    batch = task.encode(byte_tokenizer()).train.__getitems__([0])
    logits = torch.zeros(4, 64, 257)
    logits[..., list(b" blue")] = 4.0
    scores, answers = task.choices(logits, batch["labels"])  # type: ignore[attr-defined]
    assert scores.argmax(-1).tolist() == answers.tolist() == [2]
    likely = 4.0 - float(logits[0, 0].logsumexp(-1))
    assert float(scores[0, 2]) == pytest.approx(likely)


def test_a_context_must_hold_the_question_and_be_filled_by_the_article(
    make_task: Make, write: Write
) -> None:
    _articles(write, 4)
    for context in (16, 4096):
        task = make_task("quality_lm", "task.tokenizer=bytes", f"task.context={context}")
        with pytest.raises(HadError, match=rf"task\.context={context}: .*:\d: the question"):
            task.encode(byte_tokenizer())
