"""Model cards say what records say, in a form that the Hub reads."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from had.results.card import card
from had.results.card_facts import Facts
from tests.results.material import record

OWN = record(
    *("rte", 1, 72.0, 68.0),
    **{
        "teacher/accuracy": 0.72,
        "student/accuracy": 0.68,
        "student/agreement": 0.9,
        "hw/standard/onchip_energy_per_query_nj": 260.9,
        "hw/camformer/energy_ratio": 0.214,
        "packages": {"torch": "2.11.0", "triton": None},
        "commit": "abc",
        "had": "0.1.0",
    },
)
CONFIG = {
    "task": {"hub": "nyu-mll/glue", "hub_subset": "rte", "hub_dev": "validation", "split": None},
    "model": {"name": "google-bert/bert-base-uncased", "pretrained": True},
    "teacher": None,
    "schedule": {
        **{"epochs": 10, "learning_rate": 5e-5},
        "stages": [{"name": "soft", "share": 0.25}, {"name": "sign", "share": 0.75}],
    },
    "hardware": {"baseline": "standard"},
}
FACTS: dict[str, Any] = {
    "name": "someone/student",
    "base": "BertForSequenceClassification",
    "auto": "AutoModelForSequenceClassification",
    "pipeline": "text-classification",
    "packages": ("torch", "transformers"),
    "settings": {
        **{"n": 30, "minimum": 1, "scale": "head_scale"},
        **{"relaxation": "sign", "weights": "softmax"},
    },
    "layers": 12,
    "parameters": 109_483_778,
    "files": ["tokenizer_config.json", "config.json"],
    "own": OWN,
    "records": [record("rte", 0, 70.0, 69.0), OWN],
    "config": CONFIG,
    "accelerators": {"camformer": "a small one"},
}


def made(**changes: Any) -> str:
    return card(Facts(**{**FACTS, **changes}))


def front(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---\n")[1])


def test_the_hub_reads_the_scores_of_these_weights() -> None:
    model_card = pytest.importorskip("huggingface_hub").ModelCard(made())
    (result,) = model_card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.68)
    assert (result.dataset_type, result.dataset_config) == ("nyu-mll/glue", "rte")
    assert (result.dataset_split, result.task_type) == ("validation", "text-classification")
    assert model_card.data.base_model == "google-bert/bert-base-uncased"
    assert model_card.data.license == "unknown"
    assert model_card.data.datasets == ["nyu-mll/glue"]


def test_a_split_of_ours_is_not_called_the_official_one() -> None:
    task = {**CONFIG["task"], "split": {"fraction": 0.8, "seed": 0}}
    (result,) = front(made(config={**CONFIG, "task": task}))["model-index"][0]["results"]
    assert "split" not in result["dataset"]


def test_seeds_make_means_and_deviations() -> None:
    text = made()
    assert "| rte | bert | had | 30 | 2 | 71.00 ± 1.41 | 68.50 ± 0.71 | 2.50 ± 2.12 |" in text
    assert "These weights are those of seed 1" in text
    assert "| accuracy | 0.7200 | 0.6800 |" in text


def test_how_it_came_about_is_told() -> None:
    text = made()
    for part in (
        "soft 25 %, sign 75 % of 10 epochs; learning rate 5e-05",
        "| model | bert (google-bert/bert-base-uncased) |",
        "| torch | 2.11.0 |",
        "| commit | abc |",
        "- `camformer`: a small one",
        "| camformer | - | 0.214 |",
        "Ratios are to `standard`",
        "arXiv 2502.01770",
        "eprint        = {2502.01770}",
    ):
        assert part in text, part
    assert "triton" not in text


def test_the_warning_comes_before_everything_else() -> None:
    text = made()
    warned = text.index("Loaded with plain classes this is another model")
    assert warned < text.index("## ")
    assert "`BertForSequenceClassification.from_pretrained`" in text
    assert "trust_remote_code=True" in text


@pytest.mark.parametrize(
    ("files", "pipeline", "calls"),
    [
        (["tokenizer_config.json"], "text-generation", ("AutoTokenizer", "model.generate(**tok")),
        (["preprocessor_config.json"], "image-classification", ("AutoImageProcessor", ".logits")),
        ([], "text-classification", ("model(**inputs)",)),
    ],
)
def test_the_code_to_load_it_is_python(
    files: list[str], pipeline: str, calls: tuple[str, ...]
) -> None:
    text = made(files=files, pipeline=pipeline)
    code = text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert all(each in code for each in calls)
    assert ("AutoTokenizer" in code) == ("tokenizer_config.json" in files)


def test_an_unknown_licence_is_called_so() -> None:
    assert "is not known here" in made()
    text = made(licence="apache-2.0")
    assert front(text)["license"] == "apache-2.0"
    assert "is not known here" not in text


def test_nothing_is_said_where_nothing_is_known() -> None:
    text = made(own=None, records=(), config={}, accelerators={})
    assert "model-index" not in front(text)
    assert "nothing is known of its scores" in text
    for title in ("## Training", "## Cost", "## Versions"):
        assert title not in text


def test_paths_of_this_machine_stay_here() -> None:
    config = {**CONFIG, "model": {"name": "/secret/place/minilm"}, "teacher": "/secret/best"}
    text = made(config=config)
    assert "secret" not in text
    assert "bert (best)" in text
    assert "base_model" not in front(text)


def test_costs_are_those_of_this_student_or_none() -> None:
    assert "## Cost" in made(records=())
    assert "## Cost" not in made(own=None)


def test_random_weights_have_no_base() -> None:
    config = {**CONFIG, "model": {"name": "a/b", "pretrained": False}}
    assert "base_model" not in front(made(config=config))
    assert "from random weights" in made(config=config)


@pytest.mark.parametrize(
    ("n", "minimum", "said"),
    [(8, 1, "8 best keys"), (0.25, 32, "25 % of the keys, 32 at least"), (1.0, 1, "all keys")],
)
def test_n_in_words(n: float, minimum: int, said: str) -> None:
    assert said in made(settings={**FACTS["settings"], "n": n, "minimum": minimum})


def test_perplexities_are_explained() -> None:
    other = record("novels", 0, 20.0, 22.0, **{"score/ratio": 1.1})
    text = made(own=other, records=[other])
    assert "| 20.000 | 22.000 | 1.100 |" in text
    assert "perplexity (lower is better)" in text
    assert "perplexity" not in made()
