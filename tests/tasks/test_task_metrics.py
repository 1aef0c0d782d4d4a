"""Metrics against scikit-learn and scipy, and by hand where those say nothing."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import torch
from torchmetrics import MetricCollection

from had.tasks.metrics import CLASS_SCORES, PAIR_SCORES, ClassMetric, PairMetric


def class_score(name: str, predictions: list[int], labels: list[int], classes: int = 2) -> float:
    metric = ClassMetric(CLASS_SCORES[name], classes)
    metric.update(torch.eye(classes)[predictions], torch.tensor(labels))
    return metric.compute().item()


def pair_score(name: str, predictions: list[float], labels: list[float]) -> float:
    metric = PairMetric(PAIR_SCORES[name])
    metric.update(torch.tensor(predictions), torch.tensor(labels))
    return metric.compute().item()


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("seed", [0, 1])
def test_class_scores_agree_with_sklearn(classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(501, classes, generator=generator)
    labels = torch.randint(classes, (501,), generator=generator)
    metrics = MetricCollection(
        {name: ClassMetric(score, classes) for name, score in CLASS_SCORES.items()},
        compute_groups=False,
    )
    for part in range(0, 501, 64):
        metrics.update(logits[part : part + 64], labels[part : part + 64])
    found = {name: value.item() for name, value in metrics.compute().items()}
    predicted = logits.argmax(1)
    assert found["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(labels, predicted))
    assert found["macro_f1"] == pytest.approx(
        sklearn.metrics.f1_score(labels, predicted, average="macro")
    )
    assert found["f1"] == pytest.approx(
        sklearn.metrics.f1_score(labels, predicted, average=None)[1]
    )
    assert found["matthews"] == pytest.approx(sklearn.metrics.matthews_corrcoef(labels, predicted))


@pytest.mark.parametrize("seed", [0, 1])
def test_correlations_agree_with_scipy_on_float32(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 26, 1500) / 5  # many ties, as in STS-B
    predictions = (labels + random.normal(size=1500) + 1000).astype(np.float32)
    for name, truth in (("pearson", scipy.stats.pearsonr), ("spearman", scipy.stats.spearmanr)):
        metric = PairMetric(PAIR_SCORES[name])
        for part in range(0, 1500, 256):
            logits = torch.from_numpy(predictions[part : part + 256]).unsqueeze(1)
            metric.update(logits, torch.from_numpy(labels[part : part + 256]))
        expected = truth(predictions.astype(np.float64), labels)[0]
        assert metric.compute().item() == pytest.approx(expected, abs=1e-5)


def test_f1_by_hand() -> None:
    # two true positives, one false positive, two false negatives: 4 / (4 + 1 + 2)
    assert class_score("f1", [1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 1, 0]) == pytest.approx(4 / 7)


def test_f1_is_zero_where_nothing_is_positive() -> None:
    assert class_score("f1", [0, 0], [0, 0]) == 0.0


def test_macro_f1_leaves_out_classes_that_do_not_occur() -> None:
    assert class_score("macro_f1", [0, 1], [0, 1], classes=5) == 1.0


@pytest.mark.parametrize(
    ("predictions", "labels", "expected"),
    [
        ([1, 1, 1, 1], [1, 0, 1, 0], 0.0),  # constant predictions
        ([0, 0, 0, 0], [1, 0, 1, 1], 0.0),
        ([1, 0, 1, 0], [1, 1, 1, 1], 0.0),  # constant labels
        ([1, 1], [1, 1], 0.0),  # both: undefined, and scikit-learn says 0 too
        ([1, 0, 1, 0], [1, 0, 1, 0], 1.0),
        ([0, 1, 0, 1], [1, 0, 1, 0], -1.0),
    ],
)
def test_matthews_by_hand(predictions: list[int], labels: list[int], expected: float) -> None:
    assert class_score("matthews", predictions, labels) == expected


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_correlation_with_a_constant_is_zero(name: str) -> None:
    assert pair_score(name, [0.1] * 7, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]) == 0.0


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_diverged_predictions_stay_visible(name: str) -> None:
    assert np.isnan(pair_score(name, [float("nan"), 1.0, 2.0], [1.0, 2.0, 3.0]))


def test_spearman_averages_the_ranks_of_ties() -> None:
    # ranks 1.5 1.5 3 against 1 2 3: covariance 1.5, squared norms 1.5 and 2
    assert pair_score("spearman", [5.0, 5.0, 9.0], [1.0, 2.0, 3.0]) == pytest.approx(0.75**0.5)


def test_half_precision_logits_are_accepted() -> None:
    metric = PairMetric(PAIR_SCORES["pearson"])
    metric.update(
        torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.bfloat16), torch.tensor([2, 4, 6])
    )
    assert metric.compute().item() == pytest.approx(1.0)


def test_nothing_is_synchronised_between_processes() -> None:
    assert not ClassMetric(CLASS_SCORES["accuracy"], 2).sync_on_compute
    assert not PairMetric(PAIR_SCORES["pearson"]).sync_on_compute


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_metrics_take_gpu_tensors() -> None:
    metric = ClassMetric(CLASS_SCORES["matthews"], 2).to("cuda")
    metric.update(torch.eye(2, device="cuda"), torch.tensor([0, 1], device="cuda"))
    assert metric.compute().item() == 1.0
    pairs = PairMetric(PAIR_SCORES["spearman"]).to("cuda")
    pairs.update(torch.tensor([[1.0], [2.0]], device="cuda"), torch.tensor([3, 4], device="cuda"))
    assert pairs.compute().item() == 1.0
