"""The figures a model is judged by, computed by scikit-learn; one that does not exist is None.

For training (holdout figures), evaluation and the gates.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from sklearn import metrics as sk

__all__ = ["METRICS", "Metric", "Predictions", "Task", "compute", "difference"]


class Task(StrEnum):
    """What a model predicts."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a model said about some rows.

    :param labels: the predicted class or number of each row.
    :param classes: the classes in the model's order; None for a regressor.
    :param probabilities: one column a class, in the order of ``classes``; None where the model gives none.
    """

    labels: Any
    classes: Any = None
    probabilities: Any = None

    @property
    def scores(self) -> Any:
        """The probability of the positive (second) class of a binary classifier, else None."""
        binary = self.probabilities is not None and self.classes is not None and len(self.classes) == 2
        return self.probabilities[:, 1] if binary else None


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One figure: which task it is for, and in which direction it gets better."""

    task: Task
    greater_is_better: bool
    function: Callable[[Any, Predictions], float | None]


def compute(
    task: Task, truth: Any, predictions: Predictions, metrics: Sequence[str] | None = None
) -> dict[str, float | None]:
    """Every figure of the task for these rows; None where it is not defined (one class, no probabilities).

    :param truth: the true target of each row, as
        :func:`~airflow_provider_xops.training.frames.target_values` gives it.
    :param metrics: only these; names of another task's metrics are left out.

    >>> said = Predictions(labels=np.array([1.0, 2.0, 4.0]))
    >>> compute(Task.REGRESSION, np.array([1.0, 2.0, 3.0]), said)["mae"]
    0.3333333333333333
    """
    truth = np.asarray(truth)
    return {
        name: _figure(metric, truth, predictions)
        for name, metric in METRICS.items()
        if metric.task is task and (metrics is None or name in metrics)
    }


def difference(
    metric: str, challenger: Mapping[str, float | None], champion: Mapping[str, float | None]
) -> float | None:
    """By how much the challenger is better (negative: worse) in the metric's direction; None if unknown."""
    mine, theirs = challenger.get(metric), champion.get(metric)
    if mine is None or theirs is None or not math.isfinite(mine) or not math.isfinite(theirs):
        return None
    return mine - theirs if METRICS[metric].greater_is_better else theirs - mine


def _figure(metric: Metric, truth: Any, predictions: Predictions) -> float | None:
    if not len(truth):
        return None
    with warnings.catch_warnings():
        # scikit-learn warns and gives NaN (or a made-up 0) where a figure is not defined; here that is None.
        warnings.simplefilter("ignore")
        try:
            value = metric.function(truth, predictions)
        except ValueError:
            return None
    return None if value is None or not math.isfinite(value) else float(value)


def _of_labels(function: Callable[[Any, Any], float]) -> Callable[[Any, Predictions], float]:
    return lambda truth, said: function(truth, said.labels)


def _of_scores(function: Callable[[Any, Any], float]) -> Callable[[Any, Predictions], float | None]:
    """A figure of the positive class's probability; needs a binary model and both classes among the rows."""

    def figure(truth: Any, said: Predictions) -> float | None:
        if said.scores is None or set(np.unique(truth)) != set(said.classes):
            return None
        return function(truth == said.classes[1], said.scores)

    return figure


def _log_loss(truth: Any, said: Predictions) -> float | None:
    if said.probabilities is None or not set(np.unique(truth)) <= set(said.classes):
        return None
    # scikit-learn takes the columns for those of the sorted labels.
    order = np.argsort(said.classes)
    return float(sk.log_loss(truth, np.asarray(said.probabilities)[:, order], labels=said.classes[order]))


def _brier(truth: Any, said: Predictions) -> float | None:
    if said.scores is None or not set(np.unique(truth)) <= set(said.classes):
        return None
    return float(np.mean((said.scores - (truth == said.classes[1])) ** 2))


def _of_positive(function: Callable[..., float]) -> Callable[[Any, Predictions], float | None]:
    """Of the positive class of two, else the mean over the classes; None where it divides by zero."""

    def figure(truth: Any, said: Predictions) -> float | None:
        classes = said.classes if said.classes is not None else np.unique(truth)
        if len(classes) == 2:
            return function(truth == classes[1], said.labels == classes[1], zero_division=np.nan)
        return function(truth, said.labels, average="macro", zero_division=np.nan)

    return figure


def _matthews(truth: Any, said: Predictions) -> float | None:
    # A correlation with something constant is not defined; scikit-learn answers 0, which is a convention.
    if len(np.unique(truth)) < 2 or len(np.unique(said.labels)) < 2:
        return None
    return float(sk.matthews_corrcoef(truth, said.labels))


def _auc_one_versus_rest(truth: Any, said: Predictions) -> float | None:
    """The mean of each class's AUC against all others; of two classes ``roc_auc`` is the figure."""
    classes, probabilities = said.classes, said.probabilities
    if probabilities is None or classes is None or len(classes) < 3:
        return None
    if set(np.unique(truth)) != set(classes):
        return None
    return float(np.mean([sk.roc_auc_score(truth == c, probabilities[:, k]) for k, c in enumerate(classes)]))


def _mape(truth: Any, said: Predictions) -> float | None:
    # A share of zero is not defined; scikit-learn divides by a tiny number instead.
    return None if (truth == 0).any() else float(np.mean(np.abs((truth - said.labels) / truth)))


def _r2(truth: Any, said: Predictions) -> float | None:
    # With a constant target R2 divides by zero; scikit-learn then answers 0 or 1, which is a convention,
    # not a figure.
    return None if len(truth) < 2 or np.ptp(truth) == 0 else float(sk.r2_score(truth, said.labels))


def _classification(function: Any, *, greater_is_better: bool = True) -> Metric:
    return Metric(task=Task.CLASSIFICATION, greater_is_better=greater_is_better, function=function)


def _regression(function: Any, *, greater_is_better: bool = False) -> Metric:
    return Metric(task=Task.REGRESSION, greater_is_better=greater_is_better, function=function)


METRICS: dict[str, Metric] = {
    "accuracy": _classification(_of_labels(sk.accuracy_score)),
    "balanced_accuracy": _classification(_of_labels(sk.balanced_accuracy_score)),
    "precision": _classification(_of_positive(sk.precision_score)),
    "recall": _classification(_of_positive(sk.recall_score)),
    "f1": _classification(_of_positive(sk.f1_score)),
    "matthews_corrcoef": _classification(_matthews),
    "roc_auc": _classification(_of_scores(sk.roc_auc_score)),
    "roc_auc_ovr": _classification(_auc_one_versus_rest),
    "average_precision": _classification(_of_scores(sk.average_precision_score)),
    "log_loss": _classification(_log_loss, greater_is_better=False),
    "brier": _classification(_brier, greater_is_better=False),
    "mae": _regression(_of_labels(sk.mean_absolute_error)),
    "rmse": _regression(_of_labels(sk.root_mean_squared_error)),
    "median_absolute_error": _regression(_of_labels(sk.median_absolute_error)),
    "mape": _regression(_mape),
    "r2": _regression(_r2, greater_is_better=True),
}
