"""Weights of rows and classes, and where an estimator takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from airflow_provider_xops.errors import XOpsError
from airflow_provider_xops.training.fitting import fitted
from airflow_provider_xops.training.frames import feature_frame
from airflow_provider_xops.training.weights import (
    class_weights_from,
    column_weights,
    fit_keywords,
    per_class,
    row_weights,
    weighted_by_class,
)


@given(labels=st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=50))
def test_balanced_weights_are_scikit_learns(labels: list[str]) -> None:
    truth = np.array(labels, dtype=object)
    assert row_weights(truth, None, "balanced") == pytest.approx(compute_sample_weight("balanced", truth))


def test_named_classes_are_weighed_by_their_text_and_the_others_count_once() -> None:
    truth = np.array([0, 1, 2, 1])
    given_weights = np.array([1.0, 2.0, 3.0, 0.5])
    weights = class_weights_from({1: 5, "2": 2})
    assert list(row_weights(truth, given_weights, weights)) == [1.0, 10.0, 6.0, 2.5]
    assert row_weights(truth, None, None) is None


@pytest.mark.parametrize("weights", [{True: 5, False: 2}, {1: 5, 0: 2}, {1.0: 5, "0": 2}])
def test_a_target_of_booleans_or_whole_numbers_is_named_as_it_is_stored(weights: Any) -> None:
    for truth in (np.array([0, 1, 1]), np.array([0.0, 1.0, 1.0])):
        assert list(row_weights(truth, None, class_weights_from(weights))) == [2.0, 5.0, 5.0]


def test_a_batch_is_weighed_by_the_classes_of_all_rows() -> None:
    everything = np.array([0] * 9 + [1])
    factors = per_class("balanced", *np.unique(everything, return_counts=True))
    batch = np.array([0, 0])
    assert list(weighted_by_class(batch, None, factors)) == [10 / 18] * 2


@pytest.mark.parametrize(
    ("weight", "hint"),
    [
        ("heavy", "balanced"),
        ({}, "mapping"),
        ({"a": "x"}, "number"),
        ({1: 2, "1": 3}, "two weights"),
        ({"a": 0}, "positive"),
        ({"a": float("nan")}, "positive"),
    ],
)
def test_class_weights_that_are_none_are_refused(weight: Any, hint: str) -> None:
    with pytest.raises(XOpsError) as caught:
        class_weights_from(weight)
    assert caught.value.code == "argument.class_weight"
    assert hint in str(caught.value)


def test_a_class_that_is_not_there_is_refused_without_its_name() -> None:
    with pytest.raises(XOpsError) as caught:
        row_weights(np.array(["on time", "late"]), None, {"Late": 2.0})
    assert caught.value.code == "argument.class_weight"
    assert "on time" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ([1.0, None], "1 of 2 rows"), ([1.0, float("nan")], "1 of 2 rows"), ([1.0, -1.0], "1 of 2 rows"),
        ([0.0, 0.0], "all 2 weights"), (["a", "b"], "not a number"),
    ],
)  # fmt: skip
def test_a_column_that_is_no_weight_is_refused(values: list[Any], hint: str) -> None:
    with pytest.raises(XOpsError) as caught:
        column_weights(pa.table({"w": values}), "w")
    assert caught.value.code == "training.weights"
    assert hint in str(caught.value)


def test_only_all_rows_together_must_have_a_weight() -> None:
    table = pa.table({"w": pa.array([0, 0], pa.int32())})
    assert list(column_weights(table, "w", whole=False)) == [0.0, 0.0]
    with pytest.raises(XOpsError):
        column_weights(table, "v")


def test_a_weight_of_two_is_the_row_twice() -> None:
    rng = np.random.default_rng(0)
    table = pa.table({"x": rng.normal(size=80), "z": rng.normal(size=80)})
    frame, truth = feature_frame(table, ["x", "z"]), rng.integers(0, 2, 80)
    weights = rng.integers(1, 4, 80)
    weighted = fitted(LogisticRegression(tol=1e-10), frame, truth, name="m", weights=weights.astype(float))
    repeated = fitted(
        LogisticRegression(tol=1e-10), frame.loc[frame.index.repeat(weights)], truth.repeat(weights), name="m"
    )
    assert weighted.coef_ == pytest.approx(repeated.coef_, abs=1e-6)


def test_a_pipeline_hands_weights_to_its_last_step() -> None:
    nested = make_pipeline(StandardScaler(), make_pipeline(StandardScaler(), LogisticRegression()))
    weights = np.ones(3)
    assert list(fit_keywords(nested, weights, name="m")) == ["pipeline__logisticregression__sample_weight"]
    vote = VotingClassifier([("a", LogisticRegression())], voting="soft")
    assert list(fit_keywords(vote, weights, name="m")) == ["sample_weight"]
    assert fit_keywords(KNeighborsClassifier(), None, name="m") == {}


@pytest.mark.parametrize(
    "model",
    [
        KNeighborsClassifier(),
        make_pipeline(StandardScaler(), KNeighborsClassifier()),
        VotingClassifier([("a", LogisticRegression()), ("b", KNeighborsClassifier())]),
    ],
    ids=["estimator", "pipeline", "vote"],
)
def test_an_estimator_without_weights_is_refused(model: Any) -> None:
    with pytest.raises(XOpsError) as caught:
        fit_keywords(model, np.ones(3), name="kneighbors")
    assert caught.value.code == "training.no_sample_weight"
    assert "kneighbors" in str(caught.value)
