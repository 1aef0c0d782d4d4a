"""Exported students are the students, and what may not be exported is refused."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import had
from had.errors import HadError
from had.models.export import Export, export
from had.models.exporters import EXPORTERS
from had.models.family import family_of
from had.models.source_file import source_file
from tests.models.zoo import ZOO, build, output


def exported(name: str, directory: Path, recipe: Any = "had", **options: Any) -> nn.Module:
    """A student of the zoo, exported into `exported` beside its own directory."""
    model, inputs = build(name), ZOO[name].inputs()
    settings = {"n": 5, "backend": "reference", **options}
    had.binarize(model, binarization=recipe, calibration=[inputs], **settings)
    had.save(model, directory / "student")
    export(directory / "student", directory / "exported")
    return model


def reread(directory: Path) -> Any:
    return transformers.AutoModel.from_pretrained(directory / "exported", trust_remote_code=True)


@pytest.mark.parametrize(
    "name",
    ["roberta", "modernbert", "llama", "gpt2_lm", "gemma3", "t5", "deit", "timm_deit_distilled"],
)
def test_an_exported_student_gives_the_same_output(name: str, tmp_path: Path) -> None:
    model, inputs = exported(name, tmp_path), ZOO[name].inputs()
    with torch.no_grad():
        assert torch.equal(output(reread(tmp_path), inputs), output(model, inputs))


@pytest.mark.parametrize("recipe", ["had_plus", "binary_attention", "topn_fp", "sab"])
def test_every_kind_of_attention_can_be_exported(recipe: str, tmp_path: Path) -> None:
    model, inputs = exported("bert", tmp_path, recipe, n=0.3, minimum=2), ZOO["bert"].inputs()
    with torch.no_grad():
        assert torch.equal(output(reread(tmp_path), inputs), output(model, inputs))


def test_a_learned_position_bias_is_exported(tmp_path: Path) -> None:
    model = exported("timm_vit", tmp_path, {"scale": "mean_abs", "position_bias": True})
    inputs = ZOO["timm_vit"].inputs()
    read = reread(tmp_path)
    with torch.no_grad():
        assert torch.equal(output(read, inputs), output(model, inputs))
        tables = [each for name, each in read.named_parameters() if name.endswith(".table")]
        assert len(tables) == 2
        for table in tables:
            table.normal_()
        assert not torch.equal(output(read, inputs), output(model, inputs))


def test_the_auto_class_is_the_one_for_the_head(tmp_path: Path) -> None:
    exported("llama_lm", tmp_path)
    config = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForCausalLM"}
    assert config["model_type"] == "had-llama"  # so that nobody gets a Llama by mistake


def test_without_trust_there_is_no_model_at_all(tmp_path: Path) -> None:
    exported("bert", tmp_path)
    with pytest.raises(ValueError, match="trust_remote_code"):
        transformers.AutoModel.from_pretrained(tmp_path / "exported", trust_remote_code=False)


def test_another_attention_is_refused(tmp_path: Path) -> None:
    exported("bert", tmp_path)
    with pytest.raises(ValueError, match="Hamming attention and no other"):
        reread(tmp_path).set_attn_implementation("eager")


def test_an_exported_student_can_be_saved_again(tmp_path: Path) -> None:
    model, inputs = exported("deit", tmp_path), ZOO["deit"].inputs()
    reread(tmp_path).save_pretrained(tmp_path / "again")
    again = transformers.AutoModelForImageClassification.from_pretrained(
        tmp_path / "again", trust_remote_code=True
    )
    with torch.no_grad():
        assert torch.equal(output(again, inputs), output(model, inputs))


@pytest.mark.parametrize("name", ["bert", "timm_vit"])
def test_the_code_needs_nothing_but_what_it_says(name: str) -> None:
    model = had.binarize(build(name), 5, "binary_attention")
    target = EXPORTERS[family_of(model).name].target(model)
    tree = ast.parse(source_file(target))
    imports = [each for each in ast.walk(tree) if isinstance(each, ast.Import | ast.ImportFrom)]
    packages = {ast.unparse(each).split()[1].partition(".")[0] for each in imports}
    standard = {"__future__", "collections", "contextlib", "math", "typing"}
    assert packages - standard == set(target.packages)


def test_tokenizers_and_the_like_come_along(tmp_path: Path) -> None:
    model = had.binarize(build("bert"), 5, "had", calibration=[ZOO["bert"].inputs()])
    had.save(model, tmp_path / "student")
    (tmp_path / "student" / "vocab.txt").write_text("a\nb\n")
    export(tmp_path / "student", tmp_path / "exported")
    assert (tmp_path / "exported" / "vocab.txt").read_text() == "a\nb\n"


def test_images_come_with_their_transform(tmp_path: Path) -> None:
    exported("timm_vit", tmp_path)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "exported")
    image = torch.zeros(20, 30, 3, dtype=torch.uint8).numpy()
    pixels = processor(image, return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 16, 16)
    mean, std = (torch.tensor(processor.data_config[name]) for name in ("mean", "std"))
    torch.testing.assert_close(pixels[0, :, 8, 8], -mean / std)


def test_what_was_made_is_described(tmp_path: Path) -> None:
    model = had.binarize(build("bert"), 0.25, "had_plus", calibration=[ZOO["bert"].inputs()])
    had.save(model, tmp_path / "student")
    made = export(tmp_path / "student", tmp_path / "exported")
    assert isinstance(made, Export)
    assert (made.layers, made.target.pipeline) == (2, "text-classification")
    assert made.settings["n"] == 0.25
    assert made.parameters == sum(each.numel() for each in model.parameters())


def test_a_place_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    exported("bert", tmp_path)
    (tmp_path / "exported" / "mine.txt").write_text("mine")
    with pytest.raises(HadError, match="not empty; --force"):
        export(tmp_path / "student", tmp_path / "exported")
    export(tmp_path / "student", tmp_path / "exported", force=True)
    assert (tmp_path / "exported" / "mine.txt").read_text() == "mine"
    with pytest.raises(HadError, match="a file is in the way"):
        export(tmp_path / "student", tmp_path / "exported" / "mine.txt", force=True)
    with pytest.raises(HadError, match="the student itself"):
        export(tmp_path / "student", tmp_path / "student", force=True)


def test_only_students_are_exported_and_only_once(tmp_path: Path) -> None:
    exported("bert", tmp_path)
    with pytest.raises(HadError, match="an exported student"):
        export(tmp_path / "exported", tmp_path / "again")
    build("bert").save_pretrained(tmp_path / "plain")
    with pytest.raises(HadError, match="without Hamming attention"):
        export(tmp_path / "plain", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_an_export_that_differs_from_the_student_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = EXPORTERS["transformers"]
    save = type(exporter).save

    def spoiled(self: Any, model: Any, directory: Path) -> None:
        before = model.classifier.bias.data.clone()
        model.classifier.bias.data += 1
        save(self, model, directory)
        model.classifier.bias.data = before

    monkeypatch.setattr(type(exporter), "save", spoiled)
    with pytest.raises(HadError, match=r"does not give back classifier\.bias"):
        exported("bert", tmp_path)
    assert not (tmp_path / "exported").exists()
