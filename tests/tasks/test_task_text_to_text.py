"""Text to text: what the encoder reads, what the decoder writes, and QuALITY answered so."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from had.errors import HadError
from had.tasks.base import Task
from had.tasks.token_losses import IGNORED
from tests.models.t5 import word_tokenizer

Make = Callable[..., Task]
Write = Callable[[str, str | bytes], Path]

WORDS = ("a", "b", "c", "d")  # tokens 3, 4, 5, 6
PAIRS = "text\ttarget\na b c\tc b\nd\td\na a\tb\n"


def pairs(make_task: Make, write: Write, *overrides: str) -> Any:
    """The task of copying nothing in particular, evaluated on what it is trained on."""
    file = write("pairs.tsv", PAIRS)
    return make_task("pairs", f"task.path={file}", f"task.eval_path={file}", *overrides)


def test_a_decoder_reads_what_it_has_written(make_task: Make, write: Write) -> None:
    """Each target one token to the right, behind padding as T5 begins; its end is learned too."""
    task = pairs(make_task, write)
    batch = task.encode(word_tokenizer(WORDS)).train.__getitems__([0, 1])
    inputs, labels = batch["inputs"], batch["labels"]
    assert inputs["input_ids"][0, :5].tolist() == [3, 4, 5, 1, 0]
    assert inputs["attention_mask"].sum(1).tolist() == [4, 2]
    assert inputs["decoder_input_ids"].tolist() == [[0, 5, 4], [0, 6, 0]]
    assert inputs["decoder_attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert labels.tolist() == [[5, 4, 1], [6, 1, IGNORED]]
    assert task.num_outputs == 7


def test_a_decoder_that_begins_with_the_end(make_task: Make, write: Write) -> None:
    task = pairs(make_task, write, "task.decoder_start=eos")
    inputs = task.encode(word_tokenizer(WORDS)).train.inputs
    assert inputs["decoder_input_ids"][:, 0].tolist() == [1, 1, 1]


def test_a_model_that_begins_otherwise_is_refused(make_task: Make, write: Write) -> None:
    """The student would read its first token as another than the teacher has learned."""
    source = SimpleNamespace(preprocessor=lambda: word_tokenizer(WORDS), decoder_start=lambda: 1)
    with pytest.raises(HadError, match=r"task\.decoder_start=pad: .* begins with '</s>'"):
        pairs(make_task, write).preprocessor(source)
    assert pairs(make_task, write, "task.decoder_start=eos").preprocessor(source)


def test_a_tokenizer_without_an_end_is_refused(make_task: Make, write: Write) -> None:
    tokenizer = word_tokenizer(WORDS)
    tokenizer.eos_token = None
    with pytest.raises(HadError, match="one that ends a target"):
        pairs(make_task, write).encode(tokenizer)


def test_a_batch_is_as_wide_as_its_texts(make_task: Make, write: Write) -> None:
    file = write("pairs.tsv", f"text\ttarget\n{'a ' * 40}\tb\nc\tb\n")
    task = make_task("pairs", f"task.path={file}", f"task.eval_path={file}", "task.prefix='d d '")
    data = task.encode(word_tokenizer(WORDS)).train
    widths = [data.__getitems__(rows)["inputs"]["input_ids"].shape[1] for rows in ([1], [0, 1])]
    assert widths == [32, 64]
    assert data.inputs["input_ids"][1, :4].tolist() == [6, 6, 5, 1]


def test_a_target_counts_if_all_of_it_is_right(make_task: Make, write: Write) -> None:
    task = pairs(make_task, write)
    labels = task.encode(word_tokenizer(WORDS)).train.labels
    logits = torch.nn.functional.one_hot(labels.long().clamp_min(0), 7).float()
    logits[0, 2] = torch.eye(7)[3]  # its last token is wrong
    metrics = task.metrics()
    metrics.update(logits, labels)
    assert float(metrics.compute()["exact_match"]) == pytest.approx(2 / 3)
    assert int(task.loss_count(labels)) == 3 + 2 + 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("task.decoder_start=bos",), "task.decoder_start=bos: one of pad, eos"),
        (("task.max_length=2", "task.target_length=0"), "task.target_length=0: must be 1 or more"),
        (("task.score=accuracy",), "must be exact_match"),
        (("task.target_length=2",), "the target 'c b' has 3 tokens"),
        (("task.target=label",), "no column 'label'"),
    ],
)
def test_what_cannot_be(
    make_task: Make, write: Write, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(Exception, match=message) as refused:
        pairs(make_task, write, *overrides).encode(word_tokenizer(WORDS))
    assert isinstance(refused.value, HadError) or isinstance(refused.value.__cause__, HadError)


def test_an_empty_target_is_named_with_its_line(make_task: Make, write: Write) -> None:
    file = write("pairs.tsv", "text\ttarget\na\tb\nc\t \n")
    with pytest.raises(HadError, match=r"pairs\.tsv:3: the target is empty"):
        make_task("pairs", f"task.path={file}").read()


QUALITY = (*"ABCD", "question", "options", "text", ":", "(", ")", "which", *WORDS)


def questions(write: Write, count: int = 4) -> None:
    """Stories without end; the right option of number i is the letter i."""
    lines = [
        {
            "article": f"{'a b ' * 200}{'c ' * i}",
            "questions": [{"question": "which", "options": list(WORDS), "gold_label": i % 4 + 1}],
        }
        for i in range(count)
    ]
    text = "\n".join(map(json.dumps, lines))
    for name in ("train", "dev"):
        write(f"quality_sample/QuALITY.v1.0.1.{name}", text)


def test_the_encoder_reads_everything_once(make_task: Make, write: Write) -> None:
    questions(write)
    task: Any = make_task("quality_t5", "task.max_length=64")
    tokenizer = word_tokenizer(QUALITY)
    batch = task.encode(tokenizer).train.__getitems__([1])
    text = tokenizer.decode(batch["inputs"]["input_ids"][0])
    asked = "question : which options : ( A ) a ( B ) b ( C ) c ( D ) d text : </s> a b"
    assert text.startswith(asked)
    assert batch["inputs"]["attention_mask"].sum() == 64
    assert tokenizer.decode(batch["labels"][0]) == "B </s>"


def test_the_likeliest_letter_is_the_answer(make_task: Make, write: Write) -> None:
    """Whatever else may be likelier: here a word that is no letter at all."""
    questions(write)
    task: Any = make_task("quality_t5", "task.max_length=64")
    data = task.encode(word_tokenizer(QUALITY)).evaluation[""]
    logits = torch.zeros(4, 2, 20)
    logits[:, 0, 3:7] = torch.tensor([0.1, 0.3, 0.2, 0.0])  # B
    logits[:, 0, 12] = 9.0
    scores, answers = task.choices(logits, data.labels)
    assert scores.argmax(-1).tolist() == [1, 1, 1, 1]
    assert answers.tolist() == [0, 1, 2, 3]
    metrics = task.metrics()
    metrics.update(logits, data.labels)
    found = {name: float(value) for name, value in metrics.compute().items()}
    assert found == {"accuracy": 0.25, "chance": 0.25}


def test_letters_that_are_all_unknown_are_refused(make_task: Make, write: Write) -> None:
    questions(write)
    with pytest.raises(HadError, match="does not tell A, B, C, D apart"):
        make_task("quality_t5").encode(word_tokenizer(WORDS))


def test_a_context_must_hold_the_question_and_its_options(make_task: Make, write: Write) -> None:
    questions(write)
    task = make_task("quality_t5", "task.max_length=16")
    with pytest.raises(
        HadError, match=r"task\.max_length=16: .*:\d: the question .* takes \d\d tokens"
    ):
        task.encode(word_tokenizer(QUALITY))
