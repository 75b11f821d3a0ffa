"""Differences of two models on the same rows: intervals, tests in the right direction, corrections."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation.plan import MetricTest
from airflow_provider_xops.evaluation.statistics import compare, delong, paired_difference
from airflow_provider_xops.evaluation.statistics._resampling import Resampled, p_value
from airflow_provider_xops.records import Comparison
from airflow_provider_xops.training.metrics import METRICS, Predictions, Task, compute
from tests.unit.evaluation.statistics.samples import BINARY, binary, binary_pair, regression, several, some

CLASSIFICATION, REGRESSION = Task.CLASSIFICATION, Task.REGRESSION


def _one(compared: tuple[Comparison, ...], metric: str) -> Comparison:
    (found,) = (each for each in compared if each.metric == metric)
    return found


def test_without_tests_every_metric_has_a_difference_with_its_interval() -> None:
    truth, first, second = binary_pair(np.random.default_rng(0), 500)
    compared = compare(CLASSIFICATION, truth, first, second, resamples=300)
    values = [compute(CLASSIFICATION, truth, said) for said in (first, second)]
    assert [each.metric for each in compared] == list(values[0])
    for each in compared:
        mine, theirs = (figures[each.metric] for figures in values)
        assert (each.challenger, each.champion) == (mine, theirs)
        assert (each.hypothesis, each.test, each.p_value, each.significant) == ("", "", None, None)
        if mine is None or theirs is None:
            assert (each.difference, each.lower, each.confidence) == (None, None, None)
            continue
        assert each.difference == mine - theirs
        assert each.lower is not None
        assert each.upper is not None
        assert each.lower < each.difference < each.upper


def test_each_metric_has_its_own_test() -> None:
    truth, first, second = binary_pair(np.random.default_rng(1), 300)
    tests = [
        MetricTest(metric="accuracy"),
        MetricTest(metric="accuracy", hypothesis="non_inferiority", margin=0.02),
        MetricTest(metric="roc_auc"),
        MetricTest(metric="f1"),
    ]
    asked = {"tests": tests, "metrics": ["brier"], "resamples": 200}
    compared = compare(CLASSIFICATION, truth, first, second, **asked)  # type: ignore[arg-type]
    assert [(each.metric, each.hypothesis, each.test) for each in compared] == [
        ("accuracy", "superiority", "mcnemar_mid_p"), ("accuracy", "non_inferiority", "tango_score"),
        ("f1", "superiority", "paired_bootstrap"), ("roc_auc", "superiority", "delong"),
        ("brier", "", ""),
    ]  # fmt: skip
    clusters = np.arange(300) // 5
    clustered = compare(CLASSIFICATION, truth, first, second, clusters=clusters, **asked)  # type: ignore[arg-type]
    assert {each.test for each in clustered if each.hypothesis} == {"cluster_bootstrap"}


def test_the_p_value_of_the_auc_is_delongs() -> None:
    truth, first, second = binary_pair(np.random.default_rng(2), 300, ahead=0.3)
    ahead, error, degrees = delong.difference(delong.covariance(truth == 1, [first.scores, second.scores]))
    for margin in (0.0, 0.01):
        test = MetricTest(metric="roc_auc", margin=margin)
        (each,) = compare(CLASSIFICATION, truth, first, second, tests=[test], metrics=[])
        assert each.p_value == pytest.approx(stats.t.sf((ahead - margin) / error, degrees), abs=1e-12)
        assert each.p_value == pytest.approx(stats.norm.sf((ahead - margin) / error), abs=2e-3)
        assert (each.lower, each.upper) == pytest.approx(
            (ahead - 1.96 * error, ahead + 1.96 * error), abs=5e-4
        )


@pytest.mark.parametrize("metric", ["mae", "r2"])
def test_superiority_points_where_the_metric_gets_better(metric: str) -> None:
    rng = np.random.default_rng(3)
    truth, good = regression(rng, 400, 1.0)
    bad = Predictions(labels=truth + rng.normal(0.2, 1.5, 400))
    better = paired_difference(REGRESSION, truth, good, bad, metric=metric, resamples=500)
    worse = paired_difference(REGRESSION, truth, bad, good, metric=metric, resamples=500)
    assert better.difference == pytest.approx(-(worse.difference or 0.0))
    assert (
        (better.difference or 0.0) > 0 if METRICS[metric].greater_is_better else (better.difference or 0) < 0
    )
    assert (better.significant, worse.significant) == (True, False)
    assert (better.p_value or 1) < 0.01
    assert (worse.p_value or 0) > 0.99


def test_a_paired_bootstrap_of_means_agrees_with_the_paired_t_test() -> None:
    rng = np.random.default_rng(4)
    for shift in (1.0, 1.03, 1.08):
        truth, first = regression(rng, 1_000)
        second = Predictions(labels=truth + shift * (first.labels - truth) + rng.normal(0, 0.3, 1_000))
        losses = [np.abs(said.labels - truth) for said in (first, second)]
        expected = stats.ttest_rel(*losses, alternative="less").pvalue
        ours = paired_difference(REGRESSION, truth, first, second, metric="mae", resamples=8_000)
        assert ours.p_value == pytest.approx(expected, abs=0.015)


def test_the_p_value_is_where_the_lower_bound_meets_the_bar() -> None:
    from airflow_provider_xops.evaluation.statistics._resampling import bca

    rng = np.random.default_rng(5)
    resampled = Resampled(drawn=rng.gamma(4.0, 0.3, 20_000), without=rng.gamma(4.0, 1e-4, 400))
    value = float(np.median(resampled.drawn)) * 1.02
    assert abs(resampled.acceleration or 0.0) > 0.005
    for level in (0.01, 0.05, 0.3, 0.7):
        (bar,) = bca(value, resampled, [level]) or [0.0]
        assert p_value(value, bar, resampled, 400) == pytest.approx(level, abs=2e-3)


def test_a_margin_makes_superiority_harder_and_non_inferiority_easier() -> None:
    truth, first, second = binary_pair(np.random.default_rng(6), 800)

    def p(metric: str, hypothesis: Any, margin: float) -> float:
        found = paired_difference(
            CLASSIFICATION, truth, first, second, metric=metric, hypothesis=hypothesis, margin=margin,
            resamples=500,
        )  # fmt: skip
        return found.p_value if found.p_value is not None else np.nan

    for metric in ("accuracy", "roc_auc", "log_loss", "f1"):
        line = [
            p(metric, "superiority", 0.03), p(metric, "superiority", 0.0),
            p(metric, "non_inferiority", 0.001), p(metric, "non_inferiority", 0.2),
        ]  # fmt: skip
        assert all(more >= less - 0.01 for more, less in pairwise(line)), metric
        assert line[-1] < 0.01 < line[0]


def test_p_values_are_corrected_for_tests_and_candidates() -> None:
    truth, first, second = binary_pair(np.random.default_rng(7), 400, ahead=0.35)
    tests = [MetricTest(metric=name) for name in ("accuracy", "roc_auc", "log_loss")]
    asked: dict[str, Any] = {"tests": tests, "metrics": ["f1"], "resamples": 500}
    plain = compare(CLASSIFICATION, truth, first, second, correction="none", **asked)
    holm = compare(CLASSIFICATION, truth, first, second, correction="holm", **asked)
    many = compare(CLASSIFICATION, truth, first, second, correction="bonferroni", candidates=4, **asked)
    for one, two, three in zip(plain, holm, many, strict=True):
        if not one.hypothesis:
            assert (one.adjusted_p_value, two.adjusted_p_value, one.comparisons) == (None, None, 1)
            continue
        assert one.p_value == one.adjusted_p_value == two.p_value == three.p_value
        assert one.p_value is not None
        assert three.adjusted_p_value == pytest.approx(min(1.0, 12 * one.p_value))
        assert (two.comparisons, three.comparisons, three.correction) == (3, 12, "bonferroni")
        assert one.p_value <= (two.adjusted_p_value or 0) <= (three.adjusted_p_value or 0)
        assert two.significant is ((two.adjusted_p_value or 0) <= 0.05)


def test_what_cannot_be_tested_is_not_significant_and_does_not_count() -> None:
    truth, said = several(np.random.default_rng(8), 200)
    tests = [MetricTest(metric="roc_auc"), MetricTest(metric="f1"), MetricTest(metric="mae")]
    compared = compare(CLASSIFICATION, truth, said, said, tests=tests, metrics=[], resamples=200)
    for name in ("roc_auc", "mae"):
        each = _one(compared, name)
        assert (each.hypothesis, each.p_value, each.significant) == ("superiority", None, None)
    assert _one(compared, "f1").comparisons == 1


def test_a_model_against_itself_is_not_better_and_not_worse() -> None:
    truth, said, _ = binary_pair(np.random.default_rng(9), 400)
    for metric in ("accuracy", "roc_auc", "f1", "log_loss", "average_precision"):
        same = {"metric": metric, "resamples": 1_000}
        better = paired_difference(CLASSIFICATION, truth, said, said, **same)  # type: ignore[arg-type]
        assert (better.difference, better.p_value, better.significant) == (0.0, 1.0, False)
        not_worse = paired_difference(
            CLASSIFICATION,
            truth,
            said,
            said,
            hypothesis="non_inferiority",
            margin=0.02,
            **same,  # type: ignore[arg-type]
        )
        assert not_worse.significant is True
        # Some hundred rows that agree prove less than hundreds of thousands.
        assert 1e-3 < (not_worse.p_value or 0) < 0.05
        if metric != "accuracy":
            assert (better.lower, better.upper) == (0.0, 0.0)


@pytest.mark.parametrize("scale", [1.0, 1e-15])
def test_the_unit_of_the_target_decides_nothing(scale: float) -> None:
    rng = np.random.default_rng(14)
    one, other = (Predictions(labels=rng.normal(size=100) * scale) for _ in range(2))
    truth = np.zeros(100)
    for first, second in ((one, other), (other, one)):
        each = paired_difference(REGRESSION, truth, first, second, metric="mae", resamples=200)
        assert each.significant is False
        assert each.lower is not None


def test_models_that_agree_prove_no_more_than_their_rarest_class() -> None:
    """Both part the classes perfectly; of 20 positives nobody can say that one in a hundred is not lost."""
    truth = (np.arange(4_000) < 20).astype(int)
    said = binary(truth, 0.1 + 0.8 * truth)
    for metric in ("roc_auc", "recall", "average_precision", "f1", "balanced_accuracy"):
        for margin, expected in ((0.01, 0.99**20), (0.5, 1 / 21)):
            each = paired_difference(
                CLASSIFICATION, truth, said, said, metric=metric, hypothesis="non_inferiority", margin=margin,
                resamples=200,
            )  # fmt: skip
            assert each.p_value == pytest.approx(expected), metric
            assert (each.lower, each.upper) == (0.0, 0.0)


@pytest.mark.parametrize("metric", ["recall", "f1", "roc_auc"])
def test_few_rows_of_a_class_have_a_difference_but_no_test(metric: str) -> None:
    truth, first, second = binary_pair(np.random.default_rng(15), 3_000, positives=5)
    each = paired_difference(CLASSIFICATION, truth, first, second, metric=metric, resamples=200)
    assert each.difference is not None
    assert (each.lower, each.p_value, each.significant) == (None, None, None)


def test_few_rows_have_a_difference_but_no_test() -> None:
    truth, first, second = binary_pair(np.random.default_rng(10), 8)
    for metric in ("accuracy", "roc_auc", "log_loss"):
        each = paired_difference(CLASSIFICATION, truth, first, second, metric=metric)
        assert (each.lower, each.p_value, each.significant) == (None, None, None)


def test_some_of_the_rows_are_judged_as_if_they_were_all() -> None:
    truth, first, second = binary_pair(np.random.default_rng(11), 600)
    mask = np.random.default_rng(1).random(600) < 0.5
    clusters = np.arange(600) // 4
    for metric in ("roc_auc", "brier", "accuracy"):
        for groups in (None, clusters):
            asked: dict[str, Any] = {"metric": metric, "resamples": 200}
            whole = paired_difference(
                CLASSIFICATION, truth[mask], some(first, mask), some(second, mask),
                clusters=None if groups is None else groups[mask], **asked,
            )  # fmt: skip
            for rows in (mask, np.flatnonzero(mask)):
                part = paired_difference(
                    CLASSIFICATION, truth, first, second, rows=rows, clusters=groups, **asked
                )
                assert part == whole


def test_clusters_widen_what_looks_certain() -> None:
    truth, first, second = binary_pair(np.random.default_rng(12), 150, ahead=0.25)
    copies = np.repeat(np.arange(150), 20)
    asked: dict[str, Any] = {"metric": "roc_auc", "resamples": 1_500}
    many = (CLASSIFICATION, truth[copies], some(first, copies), some(second, copies))
    once = paired_difference(CLASSIFICATION, truth, first, second, **asked)
    careless = paired_difference(*many, **asked)
    clustered = paired_difference(*many, clusters=copies, **asked)
    assert None not in (once.p_value, careless.p_value, clustered.p_value)
    assert clustered.p_value == pytest.approx(once.p_value, abs=0.03)
    assert (careless.p_value or 0) < 0.1 * (once.p_value or 0)


def test_models_with_another_order_of_classes_are_still_paired() -> None:
    truth, first, second = binary_pair(np.random.default_rng(13), 300)
    turned = Predictions(
        labels=second.labels, classes=BINARY[::-1], probabilities=second.probabilities[:, ::-1]
    )
    each = paired_difference(CLASSIFICATION, truth, first, turned, metric="roc_auc", resamples=200)
    # The area is the same when the classes change places; DeLong's covariance is not, so it is resampled.
    assert each.test == "paired_bootstrap"
    assert each.champion == pytest.approx(compute(CLASSIFICATION, truth, second)["roc_auc"])


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_changing_places_turns_the_interval_round(seed: int) -> None:
    truth, first, second = binary_pair(np.random.default_rng(seed), 120)
    for metric in ("accuracy", "roc_auc", "log_loss"):
        asked: dict[str, Any] = {"metric": metric, "resamples": 200}
        one = paired_difference(CLASSIFICATION, truth, first, second, **asked)
        other = paired_difference(CLASSIFICATION, truth, second, first, **asked)
        assert None not in (one.lower, one.upper, other.lower, other.upper, one.p_value, other.p_value)
        assert (one.lower, one.upper) == pytest.approx((-other.upper, -other.lower), abs=1e-9)  # type: ignore[operator]
        assert 0.98 <= (one.p_value or 0) + (other.p_value or 0) <= 1.2


def test_two_models_that_never_agree_have_a_test_but_no_interval() -> None:
    truth = np.tile(BINARY, 30)
    each = paired_difference(
        CLASSIFICATION, truth, binary(truth, truth), binary(truth, 1 - truth), metric="f1", resamples=200
    )
    assert (each.difference, each.lower) == (1.0, None)
    assert each.p_value == 1 / 31  # of so many positives
    assert each.significant


@pytest.mark.parametrize(("code", "wrong"), [
    ("argument.statistics", {"candidates": 0}), ("argument.correction", {"correction": "sidak"}),
    ("argument.statistics", {"confidence": 2.0}),
])  # fmt: skip
def test_arguments_without_meaning_are_refused(code: str, wrong: dict[str, Any]) -> None:
    truth, first, second = binary_pair(np.random.default_rng(0), 50)
    with pytest.raises(ArgumentError) as caught:
        compare(CLASSIFICATION, truth, first, second, resamples=wrong.pop("resamples", 100), **wrong)
    assert caught.value.code == code
