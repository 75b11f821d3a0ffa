"""Every metric of one model with its confidence interval.

For evaluation, and for slices and curves that want the interval of one figure. Sources: Efron (1987) for BCa;
DeLong, DeLong and Clarke-Pearson (1988) for the AUC; Wilson (1927) for a share that no resample changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from scipy import special

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation.statistics import delong
from airflow_provider_xops.evaluation.statistics._kernels import Kernels
from airflow_provider_xops.evaluation.statistics._resampling import (
    Resampled,
    Units,
    bca,
    percentile,
    resample,
)
from airflow_provider_xops.evaluation.statistics._sums import Floats, Kernel
from airflow_provider_xops.evaluation.statistics._support import Support
from airflow_provider_xops.records import MetricFigure
from airflow_provider_xops.training.metrics import Predictions, Task, compute

__all__ = ["intervals", "wilson"]


def intervals(
    task: Task, truth: Any, said: Predictions, *, metrics: Sequence[str] | None = None,
    confidence: float = 0.95, resamples: int = 2_000, seed: int = 0, clusters: Any = None,
    method: Literal["auto", "bootstrap"] = "auto",
) -> dict[str, MetricFigure]:  # fmt: skip
    """The metrics of one model on some rows, each with its two-sided interval.

    :param truth: the true target of each row; ``said`` the model's answers, in the same order.
    :param metrics: which; None: all of the task.
    :param confidence: of the interval, 0.95 for example. :param resamples: of the bootstrap.
    :param clusters: for each row what it belongs to (a day, a customer), where rows that share one are not
        independent; clusters are then drawn as wholes.
    :param method: ``auto``: DeLong's interval for ``roc_auc`` (on the logit scale, so that it stays between
        0 and 1) and the bootstrap for everything else; ``bootstrap``: for all.
    :raises ArgumentError: ``argument.statistics``: lengths that differ, a confidence outside 0.5 to 1.

    Each figure's ``method`` says how its interval was made: ``bca``; ``percentile`` where BCa is not defined
    (a median; every resample on one side); ``delong``; ``wilson`` for a share of 0 or 1, which no resample
    changes. There is none (``lower`` is None) for fewer than 10 rows or clusters (of each class, where the
    metric looks at classes), for a metric that more than 5 % of the resamples leave undefined, and where no
    resample differs.

    >>> intervals(Task.CLASSIFICATION, truth, said, metrics=["f1"])["f1"].lower  # doctest: +SKIP
    0.61

    What it does not do: nothing about rows of another kind than these; that is what drift is for.
    """
    check_arguments(truth, (said,), confidence, resamples, clusters)
    truth = np.asarray(truth)
    values = compute(task, truth, said, metrics)
    units = Units.of(len(truth), clusters, seed)
    support = Support(truth, clusters, units)
    kernels = Kernels(truth, said)
    figures: dict[str, MetricFigure] = {}
    jobs: dict[str, tuple[Kernel, ...]] = {}
    for name, value in values.items():
        figures[name] = MetricFigure(metric=name, value=value, rows=len(truth))
        if value is None or not support.enough(name):
            continue
        if name == "roc_auc" and method == "auto" and clusters is None:
            figures[name] = _of_auc(value, kernels, confidence, len(truth))
        else:
            jobs[name] = (kernels.of(name),)
    for name, resampled in resample(jobs, units, resamples=resamples, seed=seed).items():
        bounds = bounds_of(float(values[name] or 0.0), resampled, confidence, jobs[name][0], units)
        if bounds is not None:
            figures[name] = MetricFigure(
                metric=name, value=values[name], lower=bounds[0], upper=bounds[1], confidence=confidence,
                method=bounds[2], rows=len(truth),
            )  # fmt: skip
    return figures


def wilson(successes: float, trials: float, confidence: float) -> tuple[float, float]:
    """The score interval of a share.

    >>> [round(bound, 4) for bound in wilson(81, 263, 0.95)]  # Newcombe (1998), table I
    [0.2553, 0.3662]
    """
    z = float(special.ndtri((1 + confidence) / 2))
    share = successes / trials
    center = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return max(0.0, center - half), min(1.0, center + half)


def bounds_of(
    value: float, resampled: Resampled, confidence: float, kernel: Kernel | None = None,
    units: Units | None = None,
) -> tuple[float, float, str] | None:  # fmt: skip
    """The interval's ends and how they were made; None where there is no honest one."""
    if not resampled.usable:
        return None
    if resampled.constant:
        if kernel is None or kernel.share is None:
            return None
        return *wilson(*_counts(kernel, kernel.share, units), confidence), "wilson"
    levels = [(1 - confidence) / 2, (1 + confidence) / 2]
    bounds, method = bca(value, resampled, levels), "bca"
    if bounds is None:
        bounds, method = percentile(resampled, levels), "percentile"
    return bounds[0], bounds[1], method


def _counts(
    kernel: Kernel, share: Callable[[Floats], tuple[float, float]], units: Units | None
) -> tuple[float, float]:
    """Successes and trials of a share of 0 or 1; of clusters, whose rows are alike, each is one trial."""
    sums = kernel.parts[0].sums
    successes, trials = share(sums.total())
    if units is None or not units.clustered:
        return successes, trials
    lines = sums.by_unit(units.of_row, units.count)
    each = sum(share(lines[[at]].toarray()[0])[1] > 0 for at in range(units.count))
    return each * successes / trials, float(each)


def check_arguments(
    truth: Any, said: Sequence[Predictions], confidence: float, resamples: int, clusters: Any
) -> None:
    """Refuse what would give figures without meaning.

    :raises ArgumentError: ``argument.statistics``.
    """
    wrong = ""
    if any(len(each.labels) != len(truth) for each in said):
        wrong = "predictions and truth have different numbers of rows"
    elif clusters is not None and len(clusters) != len(truth):
        wrong = "clusters and truth have different numbers of rows"
    elif not 0.5 <= confidence < 1:
        wrong = f"a confidence of {confidence}"
    elif resamples < 100:
        wrong = f"{resamples} resamples are too few for an interval"
    if wrong:
        raise ArgumentError(
            wrong, code="argument.statistics",
            todo="give arrays of one length, a confidence such as 0.95, and 100 resamples or more",
        )  # fmt: skip


def _of_auc(value: float, kernels: Kernels, confidence: float, rows: int) -> MetricFigure:
    bounds = delong.interval(delong.covariance(kernels.positive, [kernels.said.scores]), confidence)
    if bounds is None:
        return MetricFigure(metric="roc_auc", value=value, rows=rows)
    return MetricFigure(
        metric="roc_auc", value=value, lower=bounds[0], upper=bounds[1], confidence=confidence,
        method="delong", rows=rows,
    )  # fmt: skip
