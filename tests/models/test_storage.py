"""Students survive the way to disk and back; damaged or foreign directories are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import had
from had.attention.module import hamming_layers
from had.attention.topn import ScaledN
from had.errors import HadError
from had.models.transformers import TransformersSource
from tests.models.zoo import ZOO, build, output

TIMM = ("timm_vit", "timm_deit_distilled")


@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert", "t5", "vit", *TIMM])
@pytest.mark.parametrize("recipe", ["had", "had_plus"])
def test_a_loaded_student_gives_the_same_logits(name: str, recipe: str, tmp_path: Path) -> None:
    model, inputs = build(name), ZOO[name].inputs()
    had.binarize(model, 5, recipe, calibration=[inputs])
    had.save(model, tmp_path)
    loaded = had.load_student(tmp_path)
    assert torch.equal(output(loaded, inputs), output(model, inputs))
    assert not loaded.training
    assert hamming_layers(loaded)[0].options == hamming_layers(model)[0].options


def test_sigma_is_in_the_file_and_the_teacher_is_not(tmp_path: Path) -> None:
    model = had.binarize(build("bert"), calibration=[ZOO["bert"].inputs()])
    had.save(model, tmp_path)
    names = set(load_file(tmp_path / "model.safetensors"))
    assert "bert.encoder.layer.1.attention.self.core.key.sigma" in names
    assert len(names) == len(model.state_dict())


def test_an_ordinary_model_is_neither_saved_nor_loaded_as_a_student(tmp_path: Path) -> None:
    model = build("bert")
    with pytest.raises(HadError, match=r"had\.binarize"):
        had.save(model, tmp_path)
    model.save_pretrained(tmp_path)
    with pytest.raises(HadError, match="without Hamming attention"):
        had.load_student(tmp_path)


def test_damage_is_named(tmp_path: Path) -> None:
    had.save(had.binarize(build("timm_vit"), calibration=[ZOO["timm_vit"].inputs()]), tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(HadError, match=r"model\.safetensors.*cut short"):
        had.load_student(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(HadError, match="not valid JSON"):
        had.load_student(tmp_path)
    with pytest.raises(HadError, match=r"no config\.json"):
        had.load_student(tmp_path / "nowhere")


def test_config_names_the_recipe(tmp_path: Path) -> None:
    model = had.binarize(build("bert"), 0.25, "had", calibration=[ZOO["bert"].inputs()])
    had.save(model, tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())["had"]
    assert settings["n"] == 0.25
    assert settings["minimum"] == 1
    assert settings["scale"] == "frozen_sigma"


def test_an_n_that_grows_is_stored_and_one_without_a_minimum_is_still_read(tmp_path: Path) -> None:
    had.save(had.binarize(build("bert"), 0.25, minimum=3), tmp_path)
    assert hamming_layers(had.load_student(tmp_path))[0].options.topn == ScaledN(0.25, 3)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    del config["had"]["minimum"]
    file.write_text(json.dumps(config))
    assert hamming_layers(had.load_student(tmp_path))[0].options.topn == 0.25


def test_a_teacher_with_its_classes_in_another_order_is_refused(tmp_path: Path) -> None:
    """Its logits would be read under the wrong names, silently."""
    model = build("bert")
    model.config.id2label = {0: "Entailment", 1: "not_entailment"}
    model.save_pretrained(tmp_path)
    source = TransformersSource(label="bert", name=str(tmp_path), modality="text")
    source.build(2, ["entailment", "not_entailment"], complete=True)
    with pytest.raises(HadError, match="entailment, not_entailment, the task's as not_entailment"):
        source.build(2, ["not_entailment", "entailment"], complete=True)
