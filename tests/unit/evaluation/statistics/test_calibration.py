"""Calibration against scikit-learn, statsmodels and what is known of the sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from sklearn.calibration import calibration_curve
from statsmodels.stats.proportion import proportion_confint

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation.statistics import calibration
from airflow_provider_xops.records import Calibration
from airflow_provider_xops.training.metrics import Predictions, Task
from tests.unit.evaluation.statistics.samples import binary, logistic, several


def _true(rng: np.random.Generator, rows: int, *, slope: float = 1.0, intercept: float = 0.0) -> Any:
    """Outcomes that follow the logit of what is said by this line."""
    said = logistic(rng.normal(size=rows) * 1.5)
    chance = logistic(intercept + slope * np.log(said / (1 - said)))
    return (rng.random(rows) < chance).astype(int), binary(chance, said)


def _measured(truth: Any, said: Predictions, **asked: Any) -> Calibration:
    found = calibration(Task.CLASSIFICATION, truth, said, **{"resamples": 300, **asked})
    assert found is not None
    return found


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("rows", [40, 1_000])
def test_bins_equal_scikit_learn(strategy: Any, rows: int) -> None:
    truth, said = _true(np.random.default_rng(0), rows)
    observed, predicted = calibration_curve(truth, said.scores, n_bins=10, strategy=strategy)
    bins = [each for each in _measured(truth, said, strategy=strategy).bins if each.rows]
    assert [each.observed for each in bins] == pytest.approx(observed)
    assert [each.predicted for each in bins] == pytest.approx(predicted)
    assert sum(each.rows for each in bins) == rows
    for each in bins:
        assert each.observed is not None
        low, high = proportion_confint(round(each.observed * each.rows), each.rows, method="wilson")
        assert (each.observed_lower, each.observed_upper) == pytest.approx((low, high), abs=1e-9)


def test_an_empty_bin_says_nothing() -> None:
    truth = np.tile([0, 1], 50)
    found = _measured(truth, binary(truth, np.where(truth == 1, 0.95, 0.05)))
    empty = found.bins[4]
    assert (empty.rows, empty.predicted, empty.observed, empty.observed_lower) == (0, None, None, None)
    assert found.maximum_error == pytest.approx(0.05)


def test_the_expected_error_by_hand() -> None:
    truth = np.array([0, 0, 0, 1, 1, 1, 1, 0, 1, 1])
    scores = np.array([0.1] * 4 + [0.9] * 6)
    found = _measured(truth, binary(truth, scores), bins=2)
    assert found.expected_error == pytest.approx(0.4 * (0.25 - 0.1) + 0.6 * (0.9 - 5 / 6))
    assert found.maximum_error == pytest.approx(0.15)


def test_intercept_and_slope_equal_statsmodels() -> None:
    truth, said = _true(np.random.default_rng(1), 800, slope=0.6, intercept=0.4)
    logit = np.log(said.scores / (1 - said.scores))
    expected = sm.Logit(truth, sm.add_constant(logit)).fit(disp=0).params
    found = _measured(truth, said)
    assert (found.intercept, found.slope) == pytest.approx(tuple(expected), abs=1e-6)


def test_a_model_that_is_too_sure_is_found_out() -> None:
    truth, said = _true(np.random.default_rng(2), 2_000, slope=0.5)
    found = _measured(truth, said)
    assert found.test == "spiegelhalter"
    assert (found.p_value or 1) < 1e-6
    assert (found.slope or 1) < 0.6
    assert (found.expected_error_lower or 0) > 0.03
    assert found.expected_error_lower is not None
    assert found.expected_error_upper is not None
    assert found.expected_error_lower < (found.expected_error or 0) < found.expected_error_upper


def test_probabilities_that_are_true_are_refused_as_rarely_as_promised() -> None:
    rng = np.random.default_rng(3)
    trials = 1_000
    refused = sum((_measured(*_true(rng, 200), resamples=100).p_value or 0) <= 0.05 for _ in range(trials))
    low, high = stats.binom.ppf([0.0005, 0.9995], trials, 0.05)
    assert low <= refused <= high


def test_the_interval_of_the_error_holds_its_value_on_the_population() -> None:
    """Of a model whose error is far from 0; near 0 the error itself is biased upward, as the page says."""
    rng = np.random.default_rng(4)
    big = _measured(*_true(np.random.default_rng(5), 400_000, slope=0.4), resamples=100)
    trials = 150
    inside = 0
    for _ in range(trials):
        found = _measured(*_true(rng, 600, slope=0.4), confidence=0.9)
        assert found.expected_error_lower is not None
        inside += found.expected_error_lower <= (big.expected_error or 0) <= (found.expected_error_upper or 0)
    assert inside >= stats.binom.ppf(0.001, trials, 0.87)


def test_clusters_widen_the_interval_and_leave_out_the_test() -> None:
    truth, said = _true(np.random.default_rng(6), 300, slope=0.5)
    copies = np.repeat(np.arange(300), 10)
    again = (truth[copies], binary(said.labels[copies], said.scores[copies]))
    once, careless, clustered = (
        _measured(truth, said), _measured(*again), _measured(*again, clusters=copies)
    )  # fmt: skip
    widths = [
        (each.expected_error_upper or 0) - (each.expected_error_lower or 0)
        for each in (once, careless, clustered)
    ]
    assert widths[1] < 0.7 * widths[0]
    assert widths[2] == pytest.approx(widths[0], rel=0.2)
    assert (clustered.p_value, clustered.test) == (None, "")
    # Wilson's interval would take the ten copies of a row for ten rows.
    assert {each.observed_lower for each in clustered.bins} == {None}


def test_what_has_no_two_classes_has_no_calibration() -> None:
    truth, said = several(np.random.default_rng(7), 50)
    assert calibration(Task.CLASSIFICATION, truth, said) is None
    number = Predictions(labels=np.arange(20.0))
    assert calibration(Task.REGRESSION, np.arange(20.0), number) is None
    broken = binary(np.zeros(20), np.full(20, np.nan))
    assert calibration(Task.CLASSIFICATION, np.zeros(20, int), broken) is None
    empty = binary(np.empty(0), np.empty(0))
    assert calibration(Task.CLASSIFICATION, np.empty(0, int), empty) is None


def test_no_bins_are_refused() -> None:
    truth, said = _true(np.random.default_rng(8), 50)
    with pytest.raises(ArgumentError) as caught:
        _measured(truth, said, bins=0)
    assert caught.value.code == "argument.statistics"


def test_one_class_has_an_error_but_no_line() -> None:
    found = _measured(np.ones(60, int), binary(np.ones(60), np.linspace(0.5, 0.9, 60)))
    assert (found.intercept, found.slope) == (None, None)
    assert found.expected_error == pytest.approx(0.3, abs=0.01)


def test_scores_that_part_the_classes_have_no_line() -> None:
    truth = np.repeat([0, 1], 40)
    found = _measured(truth, binary(truth, np.linspace(0.05, 0.95, 80)))
    assert (found.intercept, found.slope) == (None, None)


def test_certain_and_right_probabilities_leave_nothing_to_test() -> None:
    truth = np.repeat([0, 1], 40)
    found = _measured(truth, binary(truth, truth.astype(float)))
    assert (found.expected_error, found.p_value, found.test) == (0.0, None, "")
    assert found.expected_error_lower is None
