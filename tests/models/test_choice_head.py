"""One number a sequence: trained heads of multiple choice are kept, others get a fresh one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

import had
from had.models.family import family_of
from had.models.transformers import TransformersSource

SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 100,
}
CONFIGS = {"Bert": tf.BertConfig, "Roberta": tf.RobertaConfig, "ModernBert": tf.ModernBertConfig}


def saved(directory: Path, family: str, kind: str) -> Any:
    torch.manual_seed(0)
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1}
    config = CONFIGS[family](**SIZE, **special, sep_token_id=2)
    model = getattr(tf, f"{family}{kind}")(config).eval()
    model.save_pretrained(directory)
    return model


def loaded(directory: Path, **options: bool) -> Any:
    source = TransformersSource(label="x", name=str(directory), modality="text")
    return source.build(1, [], head="choice", **options).eval()


def questions() -> dict[str, torch.Tensor]:
    """Two questions of four options, as multiple choice takes them: (2, 4, 10)."""
    torch.manual_seed(1)
    return {
        "input_ids": torch.randint(5, 90, (2, 4, 10)),
        "attention_mask": (torch.arange(10) < torch.tensor([10, 7, 8, 5])[:, None])
        .long()
        .repeat(2, 1, 1),
    }


@pytest.mark.parametrize("family", CONFIGS)
def test_a_trained_head_is_kept(tmp_path: Path, family: str) -> None:
    theirs = saved(tmp_path, family, "ForMultipleChoice")
    model, inputs = loaded(tmp_path, complete=True), questions()
    flat = {name: tensor.flatten(0, 1) for name, tensor in inputs.items()}
    with torch.no_grad():
        ours = family_of(model).logits(model, flat)
        torch.testing.assert_close(ours.view(2, 4), theirs(**inputs).logits)


def test_a_student_of_it_reads_the_same_sequences(tmp_path: Path) -> None:
    saved(tmp_path / "model", "Roberta", "ForMultipleChoice")
    teacher = loaded(tmp_path / "model")
    flat = {name: tensor.flatten(0, 1) for name, tensor in questions().items()}
    student = had.binarize(copy.deepcopy(teacher), 4, calibration=[flat])
    had.save(student, tmp_path / "student")
    again = had.load_student(tmp_path / "student").eval()
    with torch.no_grad():
        logits = [family_of(each).logits(each, flat) for each in (student.eval(), again)]
    assert logits[0].shape == (8, 1)
    torch.testing.assert_close(*logits)


def test_a_model_without_such_a_head_gets_one(tmp_path: Path) -> None:
    saved(tmp_path, "Roberta", "Model")
    assert type(loaded(tmp_path)).__name__ == "RobertaForSequenceClassification"
