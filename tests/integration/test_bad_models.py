"""Models and teachers that cannot be used end in one clear message; nothing is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import DebertaV2Config, DebertaV2Model

from tests.integration import material
from tests.integration.trials import Trial


def test_a_directory_that_is_no_model(trial: Trial) -> None:
    (place := trial.place / "thesis").mkdir()
    line = trial.refused(f"model.name={place}")
    assert line.startswith(f"model.name={place}: not a model directory, it has no config.json; ")


@pytest.mark.parametrize("size", [0, 4, 5000])
@pytest.mark.parametrize("key", ["model.name", "teacher"])
def test_truncated_weights(trial: Trial, key: str, size: int) -> None:
    place = trial.copy_of_model()
    file = place / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    line = trial.refused(f"{key}={place}")
    assert line.startswith(f"{key}={place}: its safetensors file is damaged or cut short")
    assert line.endswith("copy or download it again")


def test_missing_weights(trial: Trial) -> None:
    place = trial.copy_of_model()
    (place / "model.safetensors").rename(place / "pytorch_model.bin")
    line = trial.refused(f"model.name={place}")
    assert line.startswith(f"model.name={place}: there is no *.safetensors in it")
    assert "pytorch_model.bin is not read" in line


def test_weights_of_another_architecture(trial: Trial) -> None:
    """They would be taken for a fresh model otherwise, and trained without a word."""
    place = trial.copy_of_model()
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    line = trial.refused(f"model.name={place}")
    assert "its weights are not those of its config.json" in line
    assert "encoder.layer.2." in line


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"model_type": ', "not a valid JSON file"),
        ('{"model_type": "brt"}', "`brt`"),
        ("{}", "`model_type`"),
    ],
)
def test_a_broken_model_configuration(trial: Trial, content: str, reason: str) -> None:
    place = trial.copy_of_model()
    (place / "config.json").write_text(content)
    line = trial.refused(f"model.name={place}")
    assert line.startswith(f"model.name={place}: cannot be loaded: ")
    assert reason in line


def test_a_model_without_its_tokenizer(trial: Trial) -> None:
    """The library makes up one that knows no word; nothing can be learned from its tokens."""
    place = trial.copy_of_model()
    for file in place.glob("tokenizer*"):
        file.unlink()
    assert trial.refused(f"model.name={place}").startswith(
        f"model.name={place}: there is no tokenizer (tokenizer.json, vocab.txt, ...); copy"
    )


def test_a_damaged_tokenizer(trial: Trial) -> None:
    place = trial.copy_of_model()
    (place / "tokenizer.json").write_text('{"version": "1.0", "trunc')
    line = trial.refused(f"model.name={place}")
    assert line.startswith(f"model.name={place}: its tokenizer cannot be loaded: ")


def test_attention_that_cannot_be_converted(trial: Trial) -> None:
    """Refused before a teacher is fine-tuned in vain."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = DebertaV2Config(vocab_size=len(material.VOCABULARY), intermediate_size=48, **sizes)
    place = material.save_model(DebertaV2Model(config), trial.place / "deberta")
    line = trial.refused(f"model.name={place}")
    assert line.startswith(f"model.name={place}: DebertaV2ForSequenceClassification has no att")


def test_more_tokens_than_the_model_takes(trial: Trial) -> None:
    assert trial.refused("task.max_length=64").startswith(
        "task.max_length=64: the model takes 32 tokens"
    )


# Teachers.


def test_a_teacher_without_a_trained_head(trial: Trial, base: Path) -> None:
    line = trial.refused(f"teacher={base}")
    assert line.startswith(f"teacher={base}: has no trained weights for classifier.bias, class")
    assert "teacher=null" in line


def test_a_teacher_of_other_classes(trial: Trial) -> None:
    place = material.classifier(trial.place / "three", classes=3)
    line = trial.refused(f"teacher={place}")
    assert line.startswith(f"teacher={place}: its head (classifier.bias) has 3 outputs, the task 2")
    assert "teacher=null" in line


@pytest.mark.parametrize("key", ["model.name", "teacher"])
def test_a_student_in_the_place_of_a_full_precision_model(trial: Trial, key: str) -> None:
    place = trial.copy_of_model()
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "had": {"n": 4}}))
    line = trial.refused(f"{key}={place}")
    assert line.startswith(f"{key}={place}: a student with Hamming attention; a full-precision")
