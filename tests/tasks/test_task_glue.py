"""The nine GLUE tasks, from tiny files in the official layouts and from the official files."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from had.errors import HadError
from had.tasks.base import Task
from had.tasks.glue import GlueTask

Make = Callable[..., Task]
Write = Callable[[str, str | bytes], Path]

MNLI_HEAD = "index\tgenre\tsentence1\tsentence2\t{}gold_label\n"
STSB_HEAD = (
    "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
)
QQP_HEAD = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"

# folder, header, one training row, one development row; both texts are "a" (and "b" in pairs)
LAYOUTS = {
    "cola": ("CoLA", "", "gj04\t1\t\ta\n", "gj04\t0\t*\ta\n"),
    "sst2": ("SST-2", "sentence\tlabel\n", "a\t1\n", "a\t0\n"),
    "mrpc": (
        "MRPC",
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n",
        "1\t7\t8\ta\tb\n",
        "0\t7\t8\ta\tb\n",
    ),
    "stsb": (
        "STS-B",
        STSB_HEAD,
        "0\tg\tf\ty\t1\tnone\tnone\ta\tb\t3.800\n",
        "0\tg\tf\ty\t1\tnone\tnone\ta\tb\t0.250\n",
    ),
    "qqp": ("QQP", QQP_HEAD, "1\t2\t3\ta\tb\t1\n", "1\t2\t3\ta\tb\t0\n"),
    "qnli": (
        "QNLI",
        "index\tquestion\tsentence\tlabel\n",
        "0\ta\tb\tnot_entailment\n",
        "0\ta\tb\tentailment\n",
    ),
    "rte": (
        "RTE",
        "index\tsentence1\tsentence2\tlabel\n",
        "0\ta\tb\tnot_entailment\n",
        "0\ta\tb\tentailment\n",
    ),
    "wnli": ("WNLI", "index\tsentence1\tsentence2\tlabel\n", "0\ta\tb\t1\n", "0\ta\tb\t0\n"),
}

OFFICIAL_ROWS = {
    "sst2": (67_349, 872),
    "cola": (8_551, 1_043),
    "mrpc": (3_668, 408),
    "rte": (2_490, 277),
    "stsb": (5_749, 1_500),
    "wnli": (635, 71),
}


def write_sst2(write: Write, rows: int) -> None:
    body = "".join(f"a\t{row % 2}\n" for row in range(rows))
    write("glue/SST-2/train.tsv", "sentence\tlabel\n" + body)


@pytest.mark.parametrize("name", LAYOUTS)
def test_official_layout(
    name: str, make_task: Make, write: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    folder, header, train, dev = LAYOUTS[name]
    write(f"glue/{folder}/train.tsv", header + train)
    write(f"glue/{folder}/dev.tsv", header + dev)
    task = make_task(f"glue/{name}")
    data = task.encode(tokenizer)
    single = name in ("cola", "sst2")
    tokens = [1, 4, 2, 0, 0] if single else [1, 4, 2, 5, 2]
    expected = (3.8, 0.25) if name == "stsb" else (1, 0)
    for part, label in zip((data.train, data.evaluation[""]), expected, strict=True):
        assert part[0]["inputs"]["input_ids"][0, :5].tolist() == tokens
        assert part[0]["labels"].tolist() == pytest.approx([label])
    assert task.num_outputs == (1 if name == "stsb" else 2)
    assert set(task.metrics()) >= {task.score}


def test_mnli_has_two_development_sets(
    make_task: Make, write: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    folder = "glue/MNLI"
    write(f"{folder}/train.tsv", MNLI_HEAD.format("label1\t") + "0\tg\ta\tb\tneutral\tneutral\n")
    dev_head = MNLI_HEAD.format("label1\tlabel2\t")
    write(f"{folder}/dev_matched.tsv", dev_head + "0\tg\ta\tb\tneutral\tneutral\tentailment\n")
    write(f"{folder}/dev_mismatched.tsv", dev_head + "0\tg\ta\tb\tneutral\tx\tcontradiction\n" * 2)
    task = make_task("glue/mnli")
    data = task.encode(tokenizer)
    assert list(data.evaluation) == ["", "mismatched"]
    assert data.train.labels.tolist() == [1]
    assert data.evaluation[""].labels.tolist() == [0]
    assert data.evaluation["mismatched"].labels.tolist() == [2, 2]
    assert task.label_names == ["entailment", "neutral", "contradiction"]


def test_construction_touches_no_data(make_task: Make) -> None:
    assert make_task("glue/sst2").num_outputs == 2  # and no file exists


def test_reading_again_is_free(make_task: Make, write: Write, tmp_path: Path) -> None:
    write_sst2(write, 2)
    dev = write("glue/SST-2/dev.tsv", "sentence\tlabel\na\t1\n")
    task = make_task("glue/sst2")
    task.read()
    dev.unlink()
    task.read()


def test_metrics_take_logits(make_task: Make) -> None:
    task = make_task("glue/mrpc")
    metrics = task.metrics()
    # labels 1 1 0, predictions 1 0 0: two of three right; F1 = 2 / (2 + 0 + 1)
    metrics.update(torch.tensor([[0.0, 1.0], [2.0, 1.0], [1.0, 0.0]]), torch.tensor([1, 1, 0]))
    found = {name: value.item() for name, value in metrics.compute().items()}
    assert found == pytest.approx({"accuracy": 2 / 3, "f1": 2 / 3})
    assert task.points(found) == pytest.approx(200 / 3)


def test_unknown_label(make_task: Make, write: Write) -> None:
    write_sst2(write, 2)
    dev = write("glue/SST-2/dev.tsv", "sentence\tlabel\na\t1\nb\t2\n")
    with pytest.raises(HadError, match=rf"{dev}:3: unknown label '2'; known labels: 0, 1"):
        make_task("glue/sst2").read()


def test_empty_file(make_task: Make, write: Write) -> None:
    path = write("glue/SST-2/train.tsv", "")
    write("glue/SST-2/dev.tsv", "sentence\tlabel\na\t1\n")
    with pytest.raises(HadError, match=rf"{path}: the file is empty"):
        make_task("glue/sst2").read()


def test_development_file_missing_beside_the_training_file(make_task: Make, write: Write) -> None:
    write_sst2(write, 2)
    with pytest.raises(HadError, match=r"dev\.tsv: no such file, though train\.tsv is there"):
        make_task("glue/sst2").read()


def test_no_files_and_no_hub(make_task: Make, tmp_path: Path) -> None:
    task = make_task("glue/sst2", f"task.hub={tmp_path / 'nowhere'}")
    with pytest.raises(HadError) as caught:
        task.read()
    message = str(caught.value)
    folder = tmp_path / "glue" / "SST-2"
    for part in (
        f"train.tsv, dev.tsv in {folder}",
        "paths.data",
        "HAD_DATA",
        "datasets",
        "nowhere",
    ):
        assert part in message


def test_split_of_one_file(
    make_task: Make,
    write: Write,
    tokenizer: PreTrainedTokenizerFast,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_sst2(write, 50)
    task = make_task("glue/sst2", "task.split={fraction: 0.8, seed: 0}")
    with caplog.at_level(logging.INFO):
        data = task.encode(tokenizer)
    assert data.train.labels.bincount().tolist() == [20, 20]
    assert data.evaluation[""].labels.bincount().tolist() == [5, 5]
    assert "not an official score" in caplog.text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.split={fraction: 1.5, seed: 0}", r"task\.split\.fraction=1\.5"),
        ("task.split={share: 0.5}", "must have the keys fraction and seed"),
        ("task.score=f1", r"task\.score=f1: not among task\.metric_names \(accuracy\)"),
        ("task.metric_names=[acuracy]", "'acuracy' is no metric of classification"),
        ("task.objective=ranking", "one of classification, regression"),
        ("task.objective=regression", "'accuracy' is no metric of regression"),
        ("task.padding=short", "one of longest, max_length"),
        ("task.batch_size=0", r"task\.batch_size=0: must be a number greater than 0"),
        ("task.text=[]", "one or two columns"),
        ("task.max_length=0", "8 tokens or more"),
    ],
)
def test_impossible_settings(make_task: Make, override: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        make_task("glue/sst2", override)


def test_impossible_settings_are_reported_together() -> None:
    conf = Path(__file__).parents[2] / "conf" / "task" / "glue"
    merged = OmegaConf.merge(*(OmegaConf.load(conf / f"{name}.yaml") for name in ("_base", "sst2")))
    keys = OmegaConf.to_container(merged) | {"topn": 0, "epochs": -1, "padding": "none"}
    del keys["_target_"], keys["defaults"]
    with pytest.raises(HadError, match=r"(?s)task\.topn=0.*task\.epochs=-1.*task\.padding=none"):
        GlueTask(**keys)


@pytest.mark.parametrize("name", OFFICIAL_ROWS)
def test_official_counts(name: str, make_task: Make, shared_data: Path) -> None:
    task = make_task(f"glue/{name}", data=shared_data)
    task.read()
    rows = (len(task._train.labels), len(task._evaluation[""].labels))
    assert rows == OFFICIAL_ROWS[name]


def test_qqp_rows_without_header(
    make_task: Make, shared_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = make_task(
        "glue/qqp",
        "task.train_file=dev_subset_23497.tsv",
        "task.header=false",
        "task.split={fraction: 0.8, seed: 0}",
        data=shared_data,
    )
    task.read()
    rows = len(task._train.labels) + len(task._evaluation[""].labels)
    assert rows == 23_496  # the first line lacks a tab
    assert "1 of 23497 lines" in caplog.text


def test_real_tokenizer_on_real_pairs(make_task: Make, shared_data: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "models" / "minilm_l6_h384")
    data = make_task("glue/rte", data=shared_data).encode(tokenizer)
    inputs = data.evaluation[""][0]["inputs"]
    text = tokenizer.decode(inputs["input_ids"][0], skip_special_tokens=True)
    assert text.startswith("dana reeve, the widow of the actor christopher reeve")
    assert text.endswith("christopher reeve had an accident.")
    assert inputs["token_type_ids"].max() == 1
    assert data.train.inputs["input_ids"].shape == (2_490, 128)
