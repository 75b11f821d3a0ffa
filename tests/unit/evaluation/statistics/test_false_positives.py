"""The tests are wrong as often as they say: at alpha 0.05, in about 5 % of 2,000 pairs without a difference.

And right as often as theory says they can be, where there is one. Figures of a run are in docs/statistics.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from airflow_provider_xops.evaluation.plan import MetricTest
from airflow_provider_xops.evaluation.statistics import compare, delong, paired_difference
from airflow_provider_xops.training.metrics import Predictions, Task
from tests.unit.evaluation.statistics.samples import BINARY, binary, binary_pair

pytestmark = pytest.mark.usefixtures("figures_by_kernels")

PAIRS = 2_000
RESAMPLES = 200
ALPHA = 0.05
Pair = Callable[[np.random.Generator], tuple[Any, Predictions, Predictions]]


def _false_positives(draw: Pair, task: Task, pairs: int = PAIRS, **asked: Any) -> int:
    rng = np.random.default_rng(2026)
    return sum(
        bool(paired_difference(task, *draw(rng), resamples=RESAMPLES, seed=pair, **asked).significant)
        for pair in range(pairs)
    )


def _within_chance(found: int, pairs: int = PAIRS) -> bool:
    low, high = stats.binom.ppf([0.0005, 0.9995], pairs, ALPHA)
    return bool(low <= found <= high)


def _labels(rng: np.random.Generator, rows: int, first: float, second: float) -> Any:
    """Two classifiers that are right with these chances, mostly on the same rows."""
    truth = rng.integers(0, 2, rows)
    shared = rng.normal(size=rows)

    def model(right: float) -> Predictions:
        skill = np.sqrt(0.5) * shared + np.sqrt(0.5) * rng.normal(size=rows)
        good = skill < stats.norm.ppf(right)
        return Predictions(labels=np.where(good, truth, 1 - truth), classes=BINARY)

    return truth, model(first), model(second)


def _numbers(rng: np.random.Generator, rows: int, first: float, second: float) -> Any:
    """Two regressors whose errors have these standard deviations."""
    truth = np.zeros(rows)
    shared = rng.normal(size=rows) * np.sqrt(0.5)
    own = (shared + rng.normal(size=rows) * np.sqrt(0.5) for _ in range(2))
    labels = [error * spread for error, spread in zip(own, (first, second), strict=True)]
    return truth, Predictions(labels=labels[0]), Predictions(labels=labels[1])


@pytest.mark.parametrize("metric", ["log_loss", "roc_auc", "accuracy"])
def test_superiority_is_claimed_of_equals_as_rarely_as_promised(metric: str) -> None:
    found = _false_positives(lambda rng: binary_pair(rng, 200), Task.CLASSIFICATION, metric=metric)
    assert _within_chance(found), found


def test_non_inferiority_of_accuracy_at_the_margin() -> None:
    found = _false_positives(
        lambda rng: _labels(rng, 300, 0.75, 0.80), Task.CLASSIFICATION, metric="accuracy",
        hypothesis="non_inferiority", margin=0.05,
    )  # fmt: skip
    assert _within_chance(found), found


def test_non_inferiority_of_the_auc_at_the_margin() -> None:
    margin = stats.norm.cdf(1.4 / math.sqrt(2)) - stats.norm.cdf(1.2 / math.sqrt(2))
    found = _false_positives(
        lambda rng: binary_pair(rng, 300, signal=1.4, ahead=-0.2), Task.CLASSIFICATION, metric="roc_auc",
        hypothesis="non_inferiority", margin=float(margin),
    )  # fmt: skip
    assert _within_chance(found), found


def test_superiority_is_claimed_as_rarely_where_ten_rows_are_positive() -> None:
    """Few positives, many negatives: the variance rests on ten placements."""
    found = _false_positives(
        lambda rng: binary_pair(rng, 2_000, positives=10), Task.CLASSIFICATION, 1_000, metric="roc_auc"
    )
    assert _within_chance(found, 1_000), found


@pytest.mark.parametrize("metric", ["recall", "balanced_accuracy", "roc_auc"])
def test_rare_mistakes_that_no_row_shows_are_not_taken_for_none(metric: str) -> None:
    """The challenger misses one positive in fifty: most samples of 30 positives do not show it."""
    margin = {"recall": 0.02, "balanced_accuracy": 0.01, "roc_auc": 0.01}[metric]

    def draw(rng: np.random.Generator) -> Any:
        truth = (np.arange(300) < 30).astype(int)
        scores = 0.2 + 0.6 * truth
        worse = np.where((truth == 1) & (rng.random(300) < 0.02), 0.2, scores)
        return truth, binary(truth, worse), binary(truth, scores)

    found = _false_positives(
        draw, Task.CLASSIFICATION, 300, metric=metric, hypothesis="non_inferiority", margin=margin
    )
    assert found <= stats.binom.ppf(0.9995, 300, ALPHA), found


def test_clusters_of_unequal_size_keep_the_promise() -> None:
    sizes = np.array([1, 2, 3, 5, 20] * 12)
    clusters = np.repeat(np.arange(60), sizes)

    def draw(rng: np.random.Generator) -> Any:
        _, *said = _numbers(rng, 60, 1.0, 1.0)
        noise = rng.normal(size=len(clusters)) * 0.1
        first, second = (Predictions(labels=each.labels[clusters] + noise) for each in said)
        return np.zeros(len(clusters)), first, second

    careful = _false_positives(draw, Task.REGRESSION, 400, metric="mae", clusters=clusters)
    careless = _false_positives(draw, Task.REGRESSION, 400, metric="mae")
    assert careful <= stats.binom.ppf(0.9995, 400, 0.08), careful  # a fifth of 60 clusters hold most rows
    assert careless > 2 * careful


def test_non_inferiority_by_bootstrap_at_the_margin() -> None:
    margin = (1.1 - 1.0) * math.sqrt(2 / math.pi)
    found = _false_positives(
        lambda rng: _numbers(rng, 200, 1.1, 1.0), Task.REGRESSION, metric="mae",
        hypothesis="non_inferiority", margin=margin,
    )  # fmt: skip
    assert _within_chance(found), found


@pytest.mark.soak
@pytest.mark.parametrize("metric", ["f1", "average_precision", "brier", "matthews_corrcoef"])
def test_superiority_of_other_metrics_is_claimed_as_rarely_as_promised(metric: str) -> None:
    found = _false_positives(lambda rng: binary_pair(rng, 500), Task.CLASSIFICATION, metric=metric)
    assert _within_chance(found), found


@pytest.mark.soak
def test_clusters_keep_the_promise_where_rows_alone_break_it() -> None:
    def draw(rng: np.random.Generator) -> Any:
        truth, first, second = _numbers(rng, 60, 1.0, 1.0)
        again = np.repeat(np.arange(60), 5)
        return truth[again], Predictions(labels=first.labels[again]), Predictions(labels=second.labels[again])

    clusters = np.repeat(np.arange(60), 5)
    careful = _false_positives(draw, Task.REGRESSION, metric="mae", clusters=clusters)
    careless = _false_positives(draw, Task.REGRESSION, metric="mae")
    assert _within_chance(careful), careful
    assert careless > 2 * careful


@pytest.mark.soak
@pytest.mark.parametrize("correction", ["holm", "bonferroni"])
def test_several_statements_together_are_wrong_as_rarely_as_one(correction: str) -> None:
    rng = np.random.default_rng(7)
    tests = [MetricTest(metric=name) for name in ("accuracy", "roc_auc", "log_loss", "f1")]
    wrong = 0
    for pair in range(1_000):
        compared = compare(
            Task.CLASSIFICATION, *binary_pair(rng, 200), tests=tests, metrics=[], resamples=400, seed=pair,
            correction=correction,
        )  # fmt: skip
        wrong += any(each.significant for each in compared)
    assert wrong <= stats.binom.ppf(0.9995, 1_000, ALPHA)


def _power(draw: Pair, task: Task, pairs: int, **asked: Any) -> float:
    return _false_positives(draw, task, pairs, **asked) / pairs


@pytest.mark.parametrize("metric", ["accuracy", "mae", "roc_auc"])
def test_power_is_what_theory_says(metric: str) -> None:
    """The share of real differences that are found, against the normal approximation of it."""
    pairs, rows = 300, 300
    rng = np.random.default_rng(1)
    if metric == "accuracy":
        draw: Pair = lambda rng: _labels(rng, rows, 0.80, 0.74)  # noqa: E731
        truth, first, second = _labels(rng, 400_000, 0.80, 0.74)
        apart = (first.labels == truth).astype(float) - (second.labels == truth)
        ahead, spread, task = apart.mean(), apart.std(), Task.CLASSIFICATION
    elif metric == "mae":
        draw = lambda rng: _numbers(rng, rows, 1.0, 1.12)  # noqa: E731
        _, first, second = _numbers(rng, 400_000, 1.0, 1.12)
        apart = np.abs(second.labels) - np.abs(first.labels)
        ahead, spread, task = apart.mean(), apart.std(), Task.REGRESSION
    else:
        draw = lambda rng: binary_pair(rng, rows, ahead=0.25)  # noqa: E731
        truth, first, second = binary_pair(rng, 400_000, ahead=0.25)
        ahead, error, _ = delong.difference(delong.covariance(truth == 1, [first.scores, second.scores]))
        spread, task = error * math.sqrt(400_000), Task.CLASSIFICATION
    theory = float(stats.norm.cdf(ahead / spread * math.sqrt(rows) - stats.norm.ppf(1 - ALPHA)))
    assert 0.4 < theory < 0.95
    found = _power(draw, task, pairs, metric=metric)
    assert found == pytest.approx(theory, abs=3.3 * math.sqrt(theory * (1 - theory) / pairs) + 0.02)


def test_the_check_of_false_positives_sees_a_test_that_is_wrong_too_often() -> None:
    """At twice the alpha the same check fails."""
    careless = _false_positives(
        lambda rng: binary_pair(rng, 200), Task.CLASSIFICATION, 600, metric="accuracy", confidence=0.90
    )
    assert not _within_chance(careless, 600)


def test_the_binary_sample_is_what_the_margin_of_the_auc_supposes() -> None:
    truth, first, second = binary_pair(np.random.default_rng(3), 200_000, signal=1.4, ahead=-0.2)
    for said, apart in ((first, 1.2), (second, 1.4)):
        expected = stats.norm.cdf(apart / math.sqrt(2))
        assert roc_auc_score(truth, said.scores) == pytest.approx(expected, abs=3e-3)
    assert binary(truth, first.scores).labels.tolist() == first.labels.tolist()
