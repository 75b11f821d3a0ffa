"""DeLong's variance equals its definition, row by row against row by row, and a published example."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from airflow_provider_xops.evaluation.statistics import delong


def _by_definition(positive: Any, scores: Any) -> tuple[Any, Any]:
    """Areas and covariance by equations 4 to 7 of DeLong et al. (1988): every pair compared."""
    areas, of_positives, of_negatives = [], [], []
    for score in scores:
        above, below = score[positive], score[~positive]
        order = np.array([[1.0 if x > y else 0.5 if x == y else 0.0 for y in below] for x in above])
        areas.append(order.mean())
        of_positives.append(order.mean(axis=1))
        of_negatives.append(order.mean(axis=0))
    m, n = order.shape
    covariance = np.empty((len(scores), len(scores)))
    for r, s in itertools.product(range(len(scores)), repeat=2):
        s10 = ((of_positives[r] - areas[r]) * (of_positives[s] - areas[s])).sum() / (m - 1)
        s01 = ((of_negatives[r] - areas[r]) * (of_negatives[s] - areas[s])).sum() / (n - 1)
        covariance[r, s] = s10 / m + s01 / n
    return np.array(areas), covariance


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1), positives=st.integers(2, 15), negatives=st.integers(2, 15),
    digits=st.sampled_from([1, 8]),
)  # fmt: skip
def test_the_fast_form_equals_the_definition_ties_included(
    seed: int, positives: int, negatives: int, digits: int
) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.permutation(np.arange(positives + negatives) < positives)
    scores = [np.round(rng.random(positives + negatives) + 0.3 * positive, digits) for _ in range(2)]
    areas, expected = _by_definition(positive, scores)
    both = delong.covariance(positive, scores)
    assert both.areas == pytest.approx(areas, abs=1e-12)
    assert both.areas == pytest.approx([roc_auc_score(positive, each) for each in scores], abs=1e-12)
    assert both.matrix == pytest.approx(expected, abs=1e-12)


def test_hanley_and_mcneils_example_of_ct_images() -> None:
    # Hanley and McNeil (1982), Radiology 143, table I: 58 normal and 51 abnormal images rated 1 to 5;
    # W = 0.893, and its standard error by their formula 0.032. DeLong's is of the same size.
    normal, abnormal = [33, 6, 6, 11, 2], [3, 2, 2, 11, 33]
    ratings = np.concatenate([np.repeat(range(1, 6), normal), np.repeat(range(1, 6), abnormal)])
    positive = np.arange(109) >= 58
    both = delong.covariance(positive, [ratings])
    assert both.areas[0] == pytest.approx(0.893, abs=5e-4)
    assert math.sqrt(both.matrix[0, 0]) == pytest.approx(0.032, abs=2e-3)


def test_models_that_rank_alike_have_no_difference_and_no_error() -> None:
    rng = np.random.default_rng(0)
    positive, scores = rng.random(50) > 0.5, rng.random(50)
    assert delong.difference(delong.covariance(positive, [scores, scores * 2]))[:2] == (0.0, 0.0)


def test_one_row_of_a_class_gives_no_variance() -> None:
    both = delong.covariance([True, False, False], [[0.9, 0.1, 0.2], [0.1, 0.9, 0.2]])
    assert both.areas.tolist() == [1.0, 0.0]
    assert np.isnan(both.matrix).all()
    assert math.isnan(delong.difference(both)[1])
    assert delong.interval(both, 0.95) is None


def test_the_interval_stays_between_zero_and_one() -> None:
    positive = np.arange(60) < 30
    scores = positive + np.where(np.arange(60) % 15 == 0, 0.5 - positive, 0.0) * 1.2
    one = delong.covariance(positive, [scores])
    low, high = delong.interval(one, 0.95) or (0.0, 0.0)
    assert 0 < low < one.areas[0] < high < 1
    perfect = delong.covariance(positive, [positive])
    assert (perfect.areas[0], delong.interval(perfect, 0.95)) == (1.0, None)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), positives=st.integers(2, 15), negatives=st.integers(2, 200))
def test_the_degrees_of_freedom_are_welchs(seed: int, positives: int, negatives: int) -> None:
    """The difference of two areas is a difference of means of placements, so Welch's test knows them."""
    rng = np.random.default_rng(seed)
    positive = np.arange(positives + negatives) < positives
    first, second = (rng.normal(size=len(positive)) + positive for _ in range(2))
    apart = (
        [[np.mean(x > score[~positive]) for x in score[positive]] for score in (first, second)],
        [[np.mean(x < score[positive]) for x in score[~positive]] for score in (first, second)],
    )
    samples = [np.subtract(*each) for each in apart]
    _, error, degrees = delong.difference(delong.covariance(positive, [first, second]))
    if error > 1e-6 and min(np.ptp(each) for each in samples) > 1e-6:
        expected = stats.ttest_ind(samples[0], -samples[1], equal_var=False)
        assert degrees == pytest.approx(expected.df, rel=1e-6)
