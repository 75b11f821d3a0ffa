"""The loss of every row, and whether some rows lose more than the others.

For slices, named or found. A slice is judged by the mean of its rows' losses, because a mean can be computed
for a hundred thousand slices from counts and sums, without asking the model again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from airflow_provider_xops.training.metrics import METRICS, Predictions, Task

__all__ = ["ROW_WISE", "metric_of_slices", "row_losses", "worse_by_clusters", "worse_than_rest"]

#: metrics that are the mean of a loss of each row, or follow it
ROW_WISE = frozenset({"log_loss", "brier", "accuracy", "mae", "rmse"})


def metric_of_slices(task: Task, said: Predictions, *, wanted: str | None = None) -> str:
    """The metric that slices show: the one wanted, else the mean of the loss that the search goes by.

    One of another task is not wanted.

    >>> metric_of_slices(Task.REGRESSION, Predictions(labels=np.zeros(3)))
    'mae'
    """
    if wanted is not None and METRICS[wanted].task is task:
        return wanted
    if task is Task.REGRESSION:
        return "mae"
    return "accuracy" if said.probabilities is None else "log_loss"


def row_losses(task: Task, truth: Any, said: Predictions, *, metric: str) -> Any:
    """The loss of each row (float64); None where a row has none, because a prediction is missing.

    :param metric: its own loss where it has one (:data:`ROW_WISE`); for the others the log loss of
        probabilities, else 0 for right and 1 for wrong; of numbers the squared error.
    """
    if task is Task.REGRESSION:
        errors = np.asarray(said.labels, dtype=np.float64) - np.asarray(truth, dtype=np.float64)
        losses = np.abs(errors) if metric == "mae" else errors**2
    else:
        losses = _class_losses(truth, said, metric)
    return losses if len(losses) and np.isfinite(losses).all() else None


def worse_than_rest(
    rows: Any, sums: Any, squares: Any, *, total: tuple[float, float, float]
) -> tuple[Any, Any, Any]:
    """For each slice the p-value that its mean loss is no larger than the rest's, the gap, and its error.

    :param rows: rows of each slice; ``sums`` and ``squares`` of their losses, which are best centered first.
    :param total: the same three of all rows together.

    The p-value is the larger of Welch's test (1947) and Student's with a pooled variance. Both hold where
    slice and rest are alike. In a small slice of skewed losses the pooled test rejects too often and Welch's
    too rarely; where all losses of a small slice are equal, it is the other way round.
    """
    from scipy.stats import t

    size, other = np.asarray(rows, dtype=np.float64), total[0] - np.asarray(rows, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, mean_of_rest = sums / size, (total[1] - sums) / other
        inside = np.maximum(squares - size * mean**2, 0)
        outside = np.maximum(total[2] - squares - other * mean_of_rest**2, 0)
        gap = mean - mean_of_rest
        shares = inside / (size - 1) / size, outside / (other - 1) / other
        welch = np.sqrt(shares[0] + shares[1])
        freedom = (shares[0] + shares[1]) ** 2 / (shares[0] ** 2 / (size - 1) + shares[1] ** 2 / (other - 1))
        pooled = np.sqrt((inside + outside) / (total[0] - 2) * (1 / size + 1 / other))
        one, two = t.sf(gap / welch, np.maximum(freedom, 1)), t.sf(gap / pooled, total[0] - 2)
    # No variance at all on either side: then the gap itself is the answer.
    flat = ~(pooled > 0)
    one = np.where(welch > 0, one, 0.0)
    p_values = np.where(flat, np.where(gap > 0, 0.0, 1.0), np.maximum(one, two))
    usable = (size >= 2) & (other >= 2)
    return np.where(usable, p_values, np.nan), gap, np.maximum(welch, pooled)


def worse_by_clusters(inside: Any, outside: Any, losses: Any, clusters: Any) -> tuple[float, float]:
    """The p-value and the standard error of the gap where rows of one cluster are not independent.

    :param inside: which rows are the slice; ``outside`` which it is compared with. :param clusters: a whole
        number from 0 on for each row.

    The variance is the sum of squares of each cluster's influence on the gap (Liang & Zeger 1986), and the
    degrees of freedom are those of the clusters that the slice lies in; a slice in one cluster proves
    nothing.
    """
    from scipy.stats import t

    slice_mean, rest_mean = losses[inside].mean(), losses[outside].mean()
    influence = np.zeros(len(losses))
    influence[inside] = (losses[inside] - slice_mean) / inside.sum()
    influence[outside] = -(losses[outside] - rest_mean) / outside.sum()
    by_cluster = np.bincount(clusters, weights=influence)
    lying_in = len(np.unique(clusters[inside]))
    if lying_in < 2:
        return 1.0, float("inf")
    error = float(np.sqrt((by_cluster**2).sum() * lying_in / (lying_in - 1)))
    gap = float(slice_mean - rest_mean)
    if error == 0:
        return (0.0 if gap > 0 else 1.0), 0.0
    return float(t.sf(gap / error, lying_in - 1)), error


def _class_losses(truth: Any, said: Predictions, metric: str) -> Any:
    wrong = (np.asarray(truth) != np.asarray(said.labels)).astype(np.float64)
    if metric == "accuracy" or said.probabilities is None or said.classes is None:
        return wrong
    classes = list(said.classes)
    places = {value: place for place, value in enumerate(classes)}
    columns = np.array([places.get(value, -1) for value in truth])
    if (columns < 0).any():  # a class the model never saw has no probability
        return wrong
    if metric == "brier" and len(classes) == 2:
        return (said.probabilities[:, 1] - columns) ** 2
    probability = said.probabilities[np.arange(len(columns)), columns]
    # As scikit-learn does: probabilities that do not add up are normalized, and 0 is not 0.
    probability = probability / said.probabilities.sum(axis=1)
    return -np.log(np.clip(probability, np.finfo(np.float64).eps, 1.0))
