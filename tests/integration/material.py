"""Small inputs for whole runs: models of two layers with random weights, files of ten lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
GOOD = ("good", "fine", "bright", "warm")
BAD = ("bad", "dull", "grey", "cold")
OTHER = ("a", "the", "film", "book", "day", "was", "is", "very", "not", "##ly", "##er", "##s")
VOCABULARY = (*SPECIAL, *GOOD, *BAD, *OTHER)
LABELS = ("cold", "warm")


def tokenizer() -> PreTrainedTokenizerFast:
    """WordPiece over two dozen words, as BERT's: [CLS] a [SEP], or [CLS] a [SEP] b [SEP]."""
    ids = {word: index for index, word in enumerate(VOCABULARY)}
    backend = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, ids[name]) for name in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=32,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def bert_config(**changes: object) -> BertConfig:
    """BERT of two layers, two heads and 32 features."""
    settings = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 32,
        "initializer_range": 0.2,  # so small a model learns nothing from the usual 0.02
    }
    return BertConfig(**{**settings, **changes})


def save_model(model: PreTrainedModel, directory: Path) -> Path:
    """The model with the tokenizer beside it."""
    model.save_pretrained(directory)
    tokenizer().save_pretrained(directory)
    return directory


def base_bert(directory: Path, seed: int = 0) -> Path:
    """BERT without a head, as published ones are."""
    torch.manual_seed(seed)
    return save_model(BertModel(bert_config()), directory)


def classifier(directory: Path, classes: int = 2, seed: int = 1) -> Path:
    """BERT with a head, as fine-tuned ones are."""
    torch.manual_seed(seed)
    config = bert_config(num_labels=classes)
    return save_model(BertForSequenceClassification(config), directory)


def sentence(row: int) -> str:
    """Sentence number `row`; even ones are kind, odd ones are not."""
    words = (BAD if row % 2 else GOOD)[row // 2 % 4]
    return f"the {('film', 'book', 'day')[row % 3]} was {words}"


def write_table(file: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """A CSV or TSV file, by its suffix; no cell holds a separator."""
    between = {".csv": ",", ".tsv": "\t"}[file.suffix]
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [between.join(map(str, row)) for row in (header, *rows)]
    file.write_text("\n".join(lines) + "\n")
    return file


def write_sst2(data: Path, train: int = 40, dev: int = 10) -> Path:
    """SST-2's official files below a data root, which is returned."""
    for name, count in (("train", train), ("dev", dev)):
        rows = [(sentence(row), 1 - row % 2) for row in range(count)]
        write_table(data / "glue" / "SST-2" / f"{name}.tsv", ("sentence", "label"), rows)
    return data


def write_stsb(data: Path, train: int = 32, dev: int = 10) -> Path:
    """STS-B's official files; a pair's score is 5 if both are kind, 2.5 if one is, else 0."""
    for name, count in (("train", train), ("dev", dev)):
        pairs = [(row, row // 2) for row in range(count)]
        rows = [(sentence(a), sentence(b), 2.5 * (2 - a % 2 - b % 2)) for a, b in pairs]
        header = ("sentence1", "sentence2", "score")
        write_table(data / "glue" / "STS-B" / f"{name}.tsv", header, rows)
    return data


def write_mnli(data: Path, train: int = 30, matched: int = 9, mismatched: int = 12) -> Path:
    """MNLI's official files with both development sets."""
    answers = ("entailment", "neutral", "contradiction")
    files = (("train", train), ("dev_matched", matched), ("dev_mismatched", mismatched))
    for name, count in files:
        rows = [(sentence(row), sentence(row + row % 3), answers[row % 3]) for row in range(count)]
        header = ("sentence1", "sentence2", "gold_label")
        write_table(data / "glue" / "MNLI" / f"{name}.tsv", header, rows)
    return data


def write_reviews(file: Path, rows: int = 40) -> Path:
    """A user's own file: sentences with the labels of `LABELS`, as strings."""
    return write_table(
        file, ("review", "mood"), [(sentence(row), LABELS[1 - row % 2]) for row in range(rows)]
    )
