"""Asking a fitted estimator, with its answers checked and its errors told without data values.

For the holdout figures of training, for evaluation and for scoring: one way to predict, so that a model is
judged by what it will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from airflow_provider_xops.errors import ModelError
from airflow_provider_xops.training.metrics import Predictions, Task
from airflow_provider_xops.training.user_errors import describe

__all__ = ["check_columns", "predict", "task_of"]

# Far above the rounding of a probability, far below any difference that matters.
CLEARLY = 1e-9


def predict(estimator: Any, frame: pd.DataFrame, *, task: Task, name: str) -> Predictions:
    """The estimator's predictions for the rows of a feature frame, which must have at least one row.

    :param name: what the model is called in an error.
    :raises ModelError: ``model.predict_failed`` when it raises, or answers with another number of rows.
    """
    probabilities = classes = None
    try:
        if (
            task is Task.CLASSIFICATION
            and hasattr(estimator, "predict_proba")
            and hasattr(estimator, "classes_")
        ):
            classes = np.asarray(estimator.classes_)
            labels, probabilities = _labels_and_probabilities(estimator, frame)
        else:
            labels = np.asarray(estimator.predict(frame))
            classes = getattr(estimator, "classes_", None) if task is Task.CLASSIFICATION else None
    except Exception as error:
        raise ModelError(
            f"{name} cannot predict these rows",
            code="model.predict_failed",
            why=describe(error, frame),
            todo=f"check what it makes of the columns {', '.join(map(str, frame.columns))}",
        ) from None
    misshapen = labels.shape != (len(frame),)
    if probabilities is not None and classes is not None:
        misshapen = misshapen or probabilities.shape != (len(frame), len(classes))
    if misshapen:
        raise ModelError(
            f"{name} gave predictions of another shape", code="model.predict_failed",
            why=f"{len(frame)} rows were asked, the answer has the shape {labels.shape}",
            todo="use an estimator whose predict gives one value a row",
        )  # fmt: skip
    return Predictions(labels=labels, classes=classes, probabilities=probabilities)


def check_columns(names: Sequence[str], features: Sequence[str], *, name: str, data: str) -> None:
    """Refuse data that lack a model's features.

    :raises ModelError: ``model.columns_missing``, naming the columns; ``model.features_unknown`` for a
        model that was adopted without a signature.
    """
    if not features:
        raise ModelError(
            f"{name} does not say which columns it takes", code="model.features_unknown",
            why="it was adopted, and MLflow has no signature of it",
            todo="adopt it again, naming its features",
        )  # fmt: skip
    missing = [feature for feature in features if feature not in set(names)]
    if missing:
        raise ModelError(
            f"{name} does not accept {data}", code="model.columns_missing",
            why=f"the columns {', '.join(missing)} are missing",
            todo="give it the dataset it was trained on, or one with the same columns",
            context={"missing": missing},
        )  # fmt: skip


def task_of(estimator: Any, target: Any = None, *, recorded: str = "") -> Task:
    """What an estimator predicts: as recorded, else as it says of itself, else by whether the target is text.

    :param target: the target's values, where they are at hand.
    :param recorded: the task in the model's record; an adopted model's is unknown.
    """
    from sklearn.base import is_classifier, is_regressor

    if recorded in set(Task):
        return Task(recorded)
    try:
        if is_classifier(estimator):
            return Task.CLASSIFICATION
        if is_regressor(estimator):
            return Task.REGRESSION
    except Exception:  # not one of scikit-learn's kind: it has no tags to ask
        pass
    if hasattr(estimator, "predict_proba") or (target is not None and target.dtype == object):
        return Task.CLASSIFICATION
    return Task.REGRESSION


def _labels_and_probabilities(estimator: Any, frame: Any) -> tuple[Any, Any]:
    """Both answers of a classifier, without computing what they share twice."""
    from sklearn.pipeline import Pipeline

    rows = frame
    if type(estimator) is Pipeline:
        # What Pipeline.predict does, once for both answers and without making a pipeline of the first steps.
        for _, step in estimator.steps[:-1]:
            rows = rows if step in (None, "passthrough") else step.transform(rows)
        estimator = estimator.steps[-1][1]
    elif isinstance(estimator, Pipeline) and len(estimator.steps) > 1:
        rows, estimator = estimator[:-1].transform(frame), estimator.steps[-1][1]
    probabilities = np.asarray(estimator.predict_proba(rows), dtype=np.float64)
    if probabilities.ndim == 2 and (
        _takes_most_likely(estimator) or (_takes_largest_decision(estimator) and _no_tie(probabilities))
    ):
        return np.asarray(estimator.classes_)[np.argmax(probabilities, axis=1)], probabilities
    return np.asarray(estimator.predict(rows)), probabilities


def _takes_largest_decision(estimator: Any) -> bool:
    """Whether ``predict`` is known to be the class of the largest decision value, of which the probability is
    a growing function: the most likely class, but for rounding where two are alike."""
    from sklearn import linear_model

    return type(estimator) is linear_model.LogisticRegression


def _no_tie(probabilities: Any) -> bool:
    """Whether in every row one class is clearly the most likely."""
    if probabilities.shape[1] < 2:
        return False
    highest = np.partition(probabilities, -2, axis=1)[:, -2:]
    return bool(np.all(highest[:, 1] - highest[:, 0] > CLEARLY))


def _takes_most_likely(estimator: Any) -> bool:
    """Whether ``predict`` is known to be the class of highest probability; subclasses may do otherwise."""
    from sklearn import ensemble, tree

    return type(estimator) in {
        ensemble.HistGradientBoostingClassifier, ensemble.RandomForestClassifier,
        ensemble.ExtraTreesClassifier, tree.DecisionTreeClassifier,
    }  # fmt: skip
