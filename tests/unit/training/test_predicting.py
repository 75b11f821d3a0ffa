"""One way to ask an estimator, equal to asking it directly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from airflow_provider_xops.errors import ModelError
from airflow_provider_xops.training.metrics import Task
from airflow_provider_xops.training.predicting import check_columns, predict, task_of

RNG = np.random.default_rng(1)
FRAME = pd.DataFrame({"a": RNG.normal(size=200), "b": RNG.normal(size=200)})
CLASSES = np.where(FRAME["a"] + FRAME["b"] > 0.8, "late", np.where(FRAME["a"] > 0, "on time", "early"))


@pytest.mark.parametrize(
    "estimator",
    [
        HistGradientBoostingClassifier(max_iter=5),
        RandomForestClassifier(5, random_state=1),
        LogisticRegression(),
        make_pipeline(StandardScaler(), LogisticRegression()),
        make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=5)),
    ],
)
@pytest.mark.parametrize("target", [CLASSES, CLASSES == "late"])
def test_labels_and_probabilities_are_the_estimators_own(estimator: Any, target: Any) -> None:
    estimator.fit(FRAME, target)
    said = predict(estimator, FRAME, task=Task.CLASSIFICATION, name="m")
    np.testing.assert_array_equal(said.labels, estimator.predict(FRAME))
    np.testing.assert_array_equal(said.probabilities, estimator.predict_proba(FRAME))
    assert (said.scores is None) == (len(set(target)) != 2)


def test_rows_between_two_classes_get_the_estimators_own_label() -> None:
    model = LogisticRegression().fit(FRAME, CLASSES == "late")
    # Rows on the border and within the rounding of one: their probability says 0.5 for both classes.
    border = -(model.intercept_[0] + model.coef_[0, 0] * FRAME["a"]) / model.coef_[0, 1]
    for shift in (0.0, 1e-17, 1e-16, -1e-16, 1e-12):
        rows = FRAME.assign(b=border * (1 + shift))
        said = predict(model, rows, task=Task.CLASSIFICATION, name="m")
        np.testing.assert_array_equal(said.labels, model.predict(rows))
        assert (np.abs(said.probabilities[:, 0] - 0.5) < 1e-9).all()


def test_a_pipeline_that_skips_a_step_predicts_like_itself() -> None:
    pipeline = make_pipeline("passthrough", StandardScaler(), None, LogisticRegression())
    pipeline.fit(FRAME, CLASSES)
    said = predict(pipeline, FRAME, task=Task.CLASSIFICATION, name="m")
    np.testing.assert_array_equal(said.labels, pipeline.predict(FRAME))
    np.testing.assert_array_equal(said.probabilities, pipeline.predict_proba(FRAME))


def test_a_regressor_and_a_classifier_without_probabilities_give_labels_only() -> None:
    numbers = predict(LinearRegression().fit(FRAME, FRAME["a"]), FRAME, task=Task.REGRESSION, name="m")
    assert numbers.scores is numbers.classes is None
    svc = predict(LinearSVC().fit(FRAME, CLASSES == "late"), FRAME, task=Task.CLASSIFICATION, name="m")
    assert svc.scores is None
    assert svc.classes.tolist() == [False, True]


def test_an_error_names_columns_and_hides_values() -> None:
    model = LinearRegression().fit(FRAME, FRAME["a"])
    rows = pd.DataFrame({"a": pd.Series(["N328NB"], dtype=object), "b": [1.0]})
    with pytest.raises(ModelError) as caught:
        predict(model, rows, task=Task.REGRESSION, name="delay v3")
    assert caught.value.code == "model.predict_failed"
    assert "delay v3" in str(caught.value)
    assert "a, b" in str(caught.value)
    assert "N328NB" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_answer_of_another_shape_is_refused() -> None:
    two_columns = LinearRegression().fit(FRAME, FRAME)
    with pytest.raises(ModelError) as caught:
        predict(two_columns, FRAME, task=Task.REGRESSION, name="m")
    assert caught.value.code == "model.predict_failed"


def test_missing_columns_are_named() -> None:
    check_columns(["a", "b", "c"], ["b", "a"], name="m v1", data="t@1")
    with pytest.raises(ModelError, match="distance, origin") as caught:
        check_columns(["a"], ["a", "distance", "origin"], name="m v1", data="t@1")
    assert caught.value.code == "model.columns_missing"
    assert caught.value.context == {"missing": ["distance", "origin"]}


class OwnClassifier:
    """Not of scikit-learn's kind: no tags."""

    def predict_proba(self, rows: Any) -> Any:
        return rows


class OwnModel:
    """Says nothing of itself."""


def test_the_task_is_what_the_estimator_says_else_what_the_target_shows() -> None:
    numbers, words = np.array([1.0]), np.array(["a"], dtype=object)
    assert task_of(LogisticRegression(), numbers) is Task.CLASSIFICATION
    assert task_of(make_pipeline(StandardScaler(), LinearRegression()), words) is Task.REGRESSION
    assert task_of(OwnClassifier(), numbers) is Task.CLASSIFICATION
    assert task_of(OwnModel(), words) is Task.CLASSIFICATION
    assert task_of(OwnModel(), numbers) is Task.REGRESSION
    assert task_of(KMeans(), numbers) is Task.REGRESSION
