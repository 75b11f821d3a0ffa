"""Making an estimator from its name and fitting it, with errors that hold no data.

For training, cross-validation, the tuning of parameters and the repetition of a training. Nothing here knows
of MLflow or of the lake.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd

from airflow_provider_xops.errors import TrainingError, XOpsError
from airflow_provider_xops.training.functions import FunctionEstimator
from airflow_provider_xops.training.user_errors import describe
from airflow_provider_xops.training.weights import fit_keywords
from airflow_provider_xops.usercode import resolve_callable

__all__ = ["build", "fitted", "fitting_errors", "for_labels", "last_step"]

log = logging.getLogger(__name__)


def build(reference: str, params: Mapping[str, Any], seed: int) -> Any:
    """An unfitted estimator from a class or factory, its randomness fixed by ``seed``.

    :raises TrainingError: ``training.estimator`` when the callable raises, or gives no estimator.
    """
    make = resolve_callable(reference)
    arguments = dict(params)
    try:
        if "seed" in inspect.signature(make).parameters:
            arguments.setdefault("seed", seed)
    except ValueError:  # a callable of an extension module without a signature
        pass
    try:
        model = make(**arguments)
        if hasattr(model, "get_params") and hasattr(model, "set_params"):
            left_open = [
                name
                for name, value in model.get_params(deep=True).items()
                if name.rpartition("__")[2] == "random_state" and value is None
            ]
            model.set_params(**dict.fromkeys(left_open, seed))
    except Exception as error:
        raise TrainingError(
            f"{reference} cannot be made with the parameters {', '.join(arguments) or '(none)'}",
            code="training.estimator", why=describe(error), todo="correct the parameters",
        ) from None  # fmt: skip
    if not callable(getattr(model, "fit", None)) or not callable(getattr(model, "predict", None)):
        raise TrainingError(
            f"{reference} gave a {type(model).__name__}, which is no estimator", code="training.estimator",
            why="it has no fit and predict", todo="name a class or factory of an object with fit and predict",
        )  # fmt: skip
    return model


def fitted(model: Any, frame: pd.DataFrame, truth: Any, *, name: str, weights: Any = None) -> Any:
    """The estimator, fitted on these rows.

    It is the one that was passed, except for a training function, which makes its own, and a classifier that
    takes only the labels 0, 1, 2, ... and is given others (:func:`for_labels`).

    :param frame: features, one row a row. :param truth: the target of each.
    :param weights: how much each row counts; None: all alike.
    :param name: what the estimator is called in an error.
    :raises TrainingError: ``training.fit_failed`` (it raised), ``training.no_sample_weight``.
    """
    log.info("Fitting %s on %d rows of %d features.", name, *frame.shape)
    if isinstance(model, FunctionEstimator):
        with fitting_errors(name, frame):
            return model.train(frame, truth, weights)
    model = for_labels(model, truth)
    keywords = fit_keywords(model, weights, name=name)
    with fitting_errors(name, frame):
        model.fit(frame, truth, **keywords)
    return model


@contextmanager
def fitting_errors(name: str, frame: pd.DataFrame) -> Iterator[None]:
    """What the estimator raises becomes a typed error without data; its warnings are counted by kind."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    except XOpsError:
        raise
    except Exception as error:
        raise TrainingError(
            f"{name} could not be fitted on {frame.shape[0]} rows of {frame.shape[1]} features",
            code="training.fit_failed", why=describe(error, frame),
            todo="check the features' types and missing values against what the estimator takes",
            context={"exception": type(error).__name__, "rows": frame.shape[0], "features": frame.shape[1]},
        ) from None  # fmt: skip
    # Their texts may quote data, so only their kinds are told.
    for kind, count in Counter(warning.category.__name__ for warning in caught).items():
        log.info("The estimator warned while fitting: %s (%d times).", kind, count)


def for_labels(model: Any, truth: Any) -> Any:
    """The estimator itself, or one around it that takes the labels as they are.

    XGBoost's classifiers take only 0, 1, 2, ... Around one that is given other labels (text, or -1 and 1)
    comes scikit-learn's soft ``VotingClassifier`` of this one member: it numbers the labels and gives them
    back, passes probabilities through, and needs no code of this package where the model is loaded. In a
    pipeline it takes the place of the last step.
    """
    last = last_step(model)
    if not _wants_numbered_labels(last) or _numbered(truth):
        return model
    from sklearn.ensemble import VotingClassifier

    vote = VotingClassifier([("model", last)], voting="soft")
    if last is model:
        return vote
    return model.set_params(**{_path_of_last(model): vote})


def last_step(model: Any) -> Any:
    """What an estimator ends in: the last step of a pipeline, else itself."""
    from sklearn.pipeline import Pipeline

    while isinstance(model, Pipeline):
        model = model.steps[-1][1]
    return model


def _path_of_last(model: Any) -> str:
    from sklearn.pipeline import Pipeline

    path = []
    while isinstance(model, Pipeline):
        name, model = model.steps[-1]
        path.append(name)
    return "__".join(path)


def _wants_numbered_labels(model: Any) -> bool:
    from sklearn.base import is_classifier

    of_xgboost = any(cls.__module__.partition(".")[0] == "xgboost" for cls in type(model).__mro__)
    return of_xgboost and is_classifier(model)


def _numbered(truth: Any) -> bool:
    labels = np.unique(truth)
    return labels.dtype.kind in "iufb" and np.array_equal(labels, np.arange(len(labels)))
