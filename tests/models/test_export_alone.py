"""Exported students run in an environment that has never heard of this package."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import had
from had.models.export import export
from tests.models.zoo import ZOO, build, output

STUDENTS: dict[str, tuple[str, str, Any]] = {
    "bert-head_scale": ("bert", "had_plus", 4),
    "bert-frozen_sigma": ("bert", "had", 100),  # more than there are keys
    "bert-mean_abs": ("bert", "binary_attention", 0.4),
    "llama_lm-had": ("llama_lm", "had", 3),
    "t5-had": ("t5", "had", 3),
    "timm_vit-had": ("timm_vit", "had", 5),
}
"""By directory: specimen, recipe and N."""

ALONE = """
import sys
from pathlib import Path

class NotHere:  # should the package be installed among the libraries that are borrowed
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "had":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotHere())
try:
    import had
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("the package is here")

import torch
from transformers import (AutoModelForCausalLM, AutoModelForImageClassification,
    AutoModelForSeq2SeqLM, AutoModelForSequenceClassification)

AUTO = {"bert": AutoModelForSequenceClassification, "llama_lm": AutoModelForCausalLM,
    "t5": AutoModelForSeq2SeqLM, "timm_vit": AutoModelForImageClassification}
for place in Path(sys.argv[1]).iterdir():
    auto = AUTO[place.name.partition("-")[0]]
    model, report = auto.from_pretrained(
        place / "exported", trust_remote_code=True, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    inputs = torch.load(place / "inputs.pt")
    with torch.no_grad():
        found = {"logits": model(**inputs).logits}
        if auto is AutoModelForCausalLM:
            prompt = inputs["input_ids"][:1]
            found["tokens"] = model.generate(prompt, max_new_tokens=8, do_sample=False)
    torch.save(found, place / "found.pt")
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for every student with what it answered in the other environment."""
    place = tmp_path_factory.mktemp("alone")
    for name in STUDENTS:
        torch.manual_seed(0)
        model = student(name)
        had.save(model, place / "students" / name / "student")
        export(place / "students" / name / "student", place / "students" / name / "exported")
        torch.save(ZOO[STUDENTS[name][0]].inputs(), place / "students" / name / "inputs.pt")
    done = subprocess.run(
        [bare_python(place / "venv"), "-c", ALONE, place / "students"],
        env={
            **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
            **{"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(place / "modules")},
        },
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return place / "students"


def student(name: str) -> Any:
    specimen, recipe, n = STUDENTS[name]
    calibration = [ZOO[specimen].inputs()]
    return had.binarize(build(specimen), n, recipe, calibration, backend="reference")


def bare_python(directory: Path) -> Path:
    """A new environment that borrows this one's libraries, but not its links to source trees."""
    venv.create(directory, with_pip=False, symlinks=True)
    libraries = [each for each in sys.path if each.endswith(("site-packages", "dist-packages"))]
    (own,) = directory.glob("lib/python*/site-packages")
    (own / "borrowed.pth").write_text("\n".join(libraries) + "\n")
    return directory / "bin" / "python"


@pytest.mark.parametrize("name", STUDENTS)
def test_the_logits_are_the_student_s(name: str, place: Path) -> None:
    inputs = ZOO[STUDENTS[name][0]].inputs()
    found: Tensor = torch.load(place / name / "found.pt")["logits"]
    if found.dim() == 3 and "decoder_input_ids" not in inputs:
        found = found[inputs["attention_mask"].bool()]
    with torch.no_grad():
        expected = output(had.load_student(place / name / "student"), inputs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_it_writes_what_the_student_writes(place: Path) -> None:
    name = "llama_lm-had"
    model: Any = had.load_student(place / name / "student")
    prompt = ZOO["llama_lm"].inputs()["input_ids"][:1]
    expected = model.generate(prompt, max_new_tokens=8, do_sample=False)
    assert torch.equal(torch.load(place / name / "found.pt")["tokens"], expected)
