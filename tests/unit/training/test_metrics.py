"""Figures equal scikit-learn's and those computed by hand; what is not defined is None."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from airflow_provider_xops.training.metrics import METRICS, Predictions, Task, compute, difference

RNG = np.random.default_rng(3)
TRUTH = RNG.integers(0, 2, 400)
SCORES = np.clip(TRUTH * 0.3 + RNG.random(400) * 0.7, 0, 1)
BINARY = Predictions(
    labels=(SCORES > 0.5).astype(int),
    classes=np.array([0, 1]),
    probabilities=np.column_stack([1 - SCORES, SCORES]),
)


def test_binary_figures_equal_scikit_learn() -> None:
    figures = compute(Task.CLASSIFICATION, TRUTH, BINARY)
    expected = {
        "accuracy": sk.accuracy_score(TRUTH, BINARY.labels),
        "balanced_accuracy": sk.balanced_accuracy_score(TRUTH, BINARY.labels),
        "precision": sk.precision_score(TRUTH, BINARY.labels),
        "recall": sk.recall_score(TRUTH, BINARY.labels),
        "f1": sk.f1_score(TRUTH, BINARY.labels),
        "matthews_corrcoef": sk.matthews_corrcoef(TRUTH, BINARY.labels),
        "roc_auc": sk.roc_auc_score(TRUTH, SCORES),
        "roc_auc_ovr": None,
        "average_precision": sk.average_precision_score(TRUTH, SCORES),
        "log_loss": sk.log_loss(TRUTH, SCORES),
        "brier": sk.brier_score_loss(TRUTH, SCORES),
    }
    assert figures == pytest.approx(expected, abs=1e-12)


def test_binary_figures_by_hand() -> None:
    # positives score 0.9 and 0.4, negatives 0.8 and 0.1: 3 of 4 pairs are in order
    said = Predictions(
        labels=np.array(["yes", "no", "yes", "no"], dtype=object),
        classes=np.array(["no", "yes"], dtype=object),
        probabilities=np.array([[0.1, 0.9], [0.6, 0.4], [0.2, 0.8], [0.9, 0.1]]),
    )
    figures = compute(Task.CLASSIFICATION, np.array(["yes", "yes", "no", "no"], dtype=object), said)
    assert figures["roc_auc"] == 0.75
    assert figures["accuracy"] == figures["precision"] == figures["recall"] == figures["f1"] == 0.5
    assert figures["brier"] == pytest.approx((0.01 + 0.36 + 0.64 + 0.01) / 4)
    assert figures["log_loss"] == pytest.approx(-math.log(0.9 * 0.4 * 0.2 * 0.9) / 4)


def test_regression_figures_by_hand() -> None:
    figures = compute(
        Task.REGRESSION, np.array([1.0, 2.0, 3.0, 4.0]), Predictions(labels=np.array([1.0, 2.0, 3.0, 8.0]))
    )
    expected = {"mae": 1.0, "rmse": 2.0, "median_absolute_error": 0.0, "mape": 0.25, "r2": 1 - 16 / 5}
    assert figures == pytest.approx(expected)


def test_several_classes_have_no_binary_figures() -> None:
    classes = np.array([0, 1, 2])
    truth = np.array([0, 1, 2, 2])
    said = Predictions(labels=np.array([0, 1, 2, 1]), classes=classes, probabilities=np.full((4, 3), 1 / 3))
    figures = compute(Task.CLASSIFICATION, truth, said)
    assert figures["roc_auc"] is figures["brier"] is figures["average_precision"] is None
    assert figures["f1"] == pytest.approx(sk.f1_score(truth, said.labels, average="macro"))
    assert figures["log_loss"] == pytest.approx(math.log(3))


def test_one_class_among_the_rows_leaves_ranking_figures_undefined() -> None:
    only_ones = TRUTH == 1
    part = Predictions(
        labels=BINARY.labels[only_ones], classes=BINARY.classes, probabilities=BINARY.probabilities[only_ones]
    )
    figures = compute(Task.CLASSIFICATION, TRUTH[only_ones], part)
    assert figures["roc_auc"] is None
    assert figures["average_precision"] is None
    assert figures["accuracy"] is not None
    assert figures["log_loss"] == pytest.approx(
        sk.log_loss(TRUTH[only_ones], SCORES[only_ones], labels=[0, 1])
    )


def test_a_class_the_model_never_saw_leaves_probability_figures_undefined() -> None:
    figures = compute(Task.CLASSIFICATION, np.where(TRUTH == 1, 2, 0), BINARY)
    assert figures["log_loss"] is None
    assert figures["roc_auc"] is None


def test_precision_without_a_positive_prediction_is_none_not_zero() -> None:
    said = Predictions(labels=np.zeros(4, int), classes=np.array([0, 1]), probabilities=None)
    figures = compute(Task.CLASSIFICATION, np.array([0, 1, 0, 1]), said)
    assert figures["precision"] is None
    assert figures["recall"] == 0.0
    assert figures["roc_auc"] is None


def test_nan_becomes_none() -> None:
    said = Predictions(labels=np.array([1.0, np.nan]))
    assert set(compute(Task.REGRESSION, np.array([1.0, 2.0]), said).values()) == {None}
    broken = Predictions(
        labels=BINARY.labels, classes=BINARY.classes, probabilities=np.full_like(BINARY.probabilities, np.nan)
    )
    figures = compute(Task.CLASSIFICATION, TRUTH, broken)
    assert [figures[name] for name in ("roc_auc", "average_precision", "log_loss", "brier")] == [None] * 4


def test_no_rows_give_no_figures() -> None:
    assert set(compute(Task.REGRESSION, np.array([]), Predictions(labels=np.array([]))).values()) == {None}


def test_r2_of_a_constant_target_is_none() -> None:
    assert (
        compute(Task.REGRESSION, np.array([2.0, 2.0]), Predictions(labels=np.array([2.0, 2.0])))["r2"] is None
    )


def test_the_difference_follows_the_direction_of_the_metric() -> None:
    assert difference("roc_auc", {"roc_auc": 0.75}, {"roc_auc": 0.5}) == 0.25
    assert difference("log_loss", {"log_loss": 0.25}, {"log_loss": 0.5}) == 0.25
    assert difference("roc_auc", {"roc_auc": None}, {"roc_auc": 0.5}) is None
    assert difference("roc_auc", {"roc_auc": float("nan")}, {"roc_auc": 0.5}) is None
    assert difference("roc_auc", {}, {}) is None


def test_lower_is_better_for_losses_only() -> None:
    losses = {name for name, metric in METRICS.items() if not metric.greater_is_better}
    assert losses == {"log_loss", "brier", "mae", "rmse", "median_absolute_error", "mape"}


def test_several_classes_have_the_mean_of_each_class_against_the_rest() -> None:
    rng = np.random.default_rng(5)
    classes = np.array(["a", "b", "c"], dtype=object)
    truth = classes[rng.integers(0, 3, 90)]
    probabilities = rng.dirichlet([1, 1, 1], 90)
    said = Predictions(
        labels=classes[probabilities.argmax(axis=1)], classes=classes, probabilities=probabilities
    )
    figures = compute(Task.CLASSIFICATION, truth, said)
    expected = sk.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    assert figures["roc_auc_ovr"] == pytest.approx(expected)
    assert figures["matthews_corrcoef"] == pytest.approx(sk.matthews_corrcoef(truth, said.labels))
    only_two = truth != "c"
    part = Predictions(labels=said.labels[only_two], classes=classes, probabilities=probabilities[only_two])
    assert compute(Task.CLASSIFICATION, truth[only_two], part)["roc_auc_ovr"] is None


def test_a_correlation_with_something_constant_is_none_not_zero() -> None:
    constant = Predictions(labels=np.zeros(4, int), classes=np.array([0, 1]))
    assert compute(Task.CLASSIFICATION, np.array([0, 1, 0, 1]), constant)["matthews_corrcoef"] is None
    varied = Predictions(labels=np.array([0, 1, 0, 1]), classes=np.array([0, 1]))
    assert compute(Task.CLASSIFICATION, np.zeros(4, int), varied)["matthews_corrcoef"] is None


def test_a_share_of_zero_is_none() -> None:
    said = Predictions(labels=np.array([1.0, 2.0]))
    assert compute(Task.REGRESSION, np.array([0.0, 2.0]), said)["mape"] is None
    assert compute(Task.REGRESSION, np.array([-2.0, 2.0]), said)["mape"] == pytest.approx(0.75)


def test_only_the_metrics_that_are_asked_for_are_computed() -> None:
    assert list(compute(Task.CLASSIFICATION, TRUTH, BINARY, ["mae", "f1", "brier"])) == ["f1", "brier"]


def test_the_order_of_the_classes_changes_no_figure() -> None:
    turned = Predictions(
        labels=BINARY.labels, classes=BINARY.classes[::-1], probabilities=BINARY.probabilities[:, ::-1]
    )
    one, other = (compute(Task.CLASSIFICATION, TRUTH, said) for said in (BINARY, turned))
    for name in ("log_loss", "brier", "roc_auc", "accuracy"):
        assert one[name] == pytest.approx(other[name], abs=1e-12), name
