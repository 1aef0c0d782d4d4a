"""Tasks built from the YAML files that users get, over tiny files written for the test."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from had.tasks.base import Task

CONF = Path(__file__).parents[2] / "conf"

PRIMARY = """
defaults:
  - task: ???
  - _self_
paths:
  data: {data}
  cache: {data}/cache
hydra:
  searchpath: ["file://{conf}"]
"""

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "b", "c", "d", "good", "bad"]


@pytest.fixture
def make_task(tmp_path: Path) -> Callable[..., Task]:
    """``make_task("glue/sst2", "task.header=false")``, with ``tmp_path`` as the data root."""

    def make(option: str, *overrides: str, data: Path = tmp_path) -> Task:
        config_dir = tmp_path / "primary"
        config_dir.mkdir(exist_ok=True)
        (config_dir / "train.yaml").write_text(PRIMARY.format(data=data, conf=CONF))
        with initialize_config_dir(str(config_dir), version_base="1.3"):
            config = compose("train", overrides=[f"task={option}", *overrides])
        task = instantiate(config.task)
        assert isinstance(task, Task)
        return task

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Writes a file below the data root and returns its path."""

    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word: [CLS] 1, [SEP] 2, a 4, b 5, c 6, d 7; pairs have types 0 and 1."""
    backend = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_max_length=128,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
