"""GLUE in the Hub's form, from a local directory."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from had.errors import HadError
from had.tasks.base import Task

Make = Callable[..., Task]
Write = Callable[[str, str | bytes], Path]


def write_hub(tmp_path: Path) -> Path:
    """A directory in the Hub's form: a card that names the subsets, and a Parquet file a split."""
    from datasets import ClassLabel, Dataset, Features, Value

    names = ["not_entailment", "entailment"]
    features = Features(
        {
            "sentence1": Value("string"),
            "sentence2": Value("string"),
            "label": ClassLabel(names=names),
        }
    )
    hub = tmp_path / "hub"
    for split, labels in (("train", [1, 0, 1]), ("validation", [0]), ("test", [-1])):
        columns = {
            "sentence1": ["a"] * len(labels),
            "sentence2": ["b"] * len(labels),
            "label": labels,
        }
        (hub / "wnli").mkdir(parents=True, exist_ok=True)
        Dataset.from_dict(columns, features).to_parquet(hub / "wnli" / f"{split}-0.parquet")
    files = "".join(
        f"  - {{split: {split}, path: wnli/{split}-*}}\n"
        for split in ("train", "validation", "test")
    )
    card = f"---\nconfigs:\n- config_name: wnli\n  data_files:\n{files}---\n"
    (hub / "README.md").write_text(card)
    return hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return write_hub(tmp_path)


def test_hub(hub: Path, make_task: Make, tokenizer: PreTrainedTokenizerFast) -> None:
    data = make_task("glue/wnli", f"task.hub={hub}").encode(tokenizer)
    assert data.train.labels.tolist() == [1, 0, 1]
    assert data.evaluation[""].labels.tolist() == [0]
    assert data.train[0]["inputs"]["input_ids"][0, :5].tolist() == [1, 4, 2, 5, 2]


def test_hub_split_without_labels(hub: Path, make_task: Make) -> None:
    task = make_task("glue/wnli", f"task.hub={hub}", "task.hub_dev=test")
    with pytest.raises(HadError, match=r"wnli test:0: the label is -1, known: 0\.\.1"):
        task.read()


def test_local_files_come_before_the_hub(hub: Path, make_task: Make, write: Write) -> None:
    header = "index\tsentence1\tsentence2\tlabel\n"
    write("glue/WNLI/train.tsv", header + "0\ta\tb\t1\n" * 7)
    write("glue/WNLI/dev.tsv", header + "0\ta\tb\t0\n")
    task = make_task("glue/wnli", f"task.hub={hub}")
    task.read()
    assert len(task._train.labels) == 7


def test_hub_without_the_package(
    make_task: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "datasets" else found(name)
    )
    with pytest.raises(HadError, match="`datasets` is not installed"):
        make_task("glue/rte").read()
