"""The probability from which on to act, by what mistakes cost.

For evaluation and the report. The threshold is chosen on one half of the rows and its cost measured on the
other: on the rows that chose it, the best of many thresholds looks better than it is.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from airflow_provider_xops.evaluation.plan import CostPlan
from airflow_provider_xops.evaluation.statistics._resampling import Units, resample
from airflow_provider_xops.evaluation.statistics._sums import Floats, Kernel, Part, Sums
from airflow_provider_xops.evaluation.statistics.confidence import bounds_of, check_arguments
from airflow_provider_xops.records import ThresholdChoice
from airflow_provider_xops.training.metrics import Predictions, Task

__all__ = ["choose_threshold"]

NEVER = math.nextafter(1.0, 2.0)  # no probability reaches it

Booleans = npt.NDArray[np.bool_]


def choose_threshold(
    task: Task, truth: Any, said: Predictions, costs: CostPlan, *, confidence: float = 0.95,
    resamples: int = 2_000, seed: int = 0, clusters: Any = None,
) -> ThresholdChoice | None:  # fmt: skip
    """The threshold of least mean cost: act where the positive class's probability is at least so high.

    :param truth: the true class of each row; ``said`` the model's answers, in the same order.
    :param costs: of acting in vain and of failing to act; right decisions cost nothing.
    :param seed: of the halves, and of the bootstrap. :param clusters: for each row what it belongs to; a
        cluster is never parted.
    :returns: None for models without two classes and probabilities, and where a half lacks one of the
        classes. Thresholds of equal cost: the one nearest to false positive / (sum of both costs), which is
        the best one for probabilities that are true (Elkan, 2001). 0: always act; above 1: never.
    :raises ArgumentError: ``argument.statistics``.

    >>> costs = CostPlan(false_positive=1, false_negative=9)
    >>> choose_threshold(Task.CLASSIFICATION, truth, said, costs).threshold  # doctest: +SKIP
    0.12
    """
    check_arguments(truth, (said,), confidence, resamples, clusters)
    truth = np.asarray(truth)
    wrong, missed = float(costs.false_positive), float(costs.false_negative)
    scores = said.scores if task is Task.CLASSIFICATION else None
    if scores is None or not set(np.unique(truth)) <= set(said.classes):
        return None
    chance = np.asarray(scores, dtype=np.float64)
    positive = np.asarray(truth == said.classes[1], dtype=bool)
    if not np.isfinite(chance).all():
        return None
    chosen = _half(len(chance), clusters, seed)
    if any(len(np.unique(positive[half])) < 2 for half in (chosen, ~chosen)):
        return None
    threshold = _cheapest(chance[chosen], positive[chosen], wrong, missed)

    judged, actual = chance[~chosen], positive[~chosen]
    kernel = _cost_kernel(judged >= threshold, actual, wrong, missed)
    cost = kernel.on_all()
    units = Units.of(len(judged), None if clusters is None else np.asarray(clusters)[~chosen], seed)
    bounds = None
    if units.enough:
        drawn = resample({"cost": (kernel,)}, units, resamples=resamples, seed=seed)["cost"]
        bounds = bounds_of(cost, drawn, confidence)
    always, never = float((~actual).mean()) * wrong, float(actual.mean()) * missed
    return ThresholdChoice(
        threshold=threshold, false_positive_cost=wrong, false_negative_cost=missed, cost=cost,
        lower=bounds[0] if bounds else None, upper=bounds[1] if bounds else None,
        default_cost=_mean_cost(judged >= 0.5, actual, wrong, missed), best_constant_cost=min(always, never),
        rows_chosen_on=int(chosen.sum()), rows_measured_on=len(judged),
    )  # fmt: skip


def _half(rows: int, clusters: Any, seed: int) -> Booleans:
    """Which rows choose: half of them, or all rows of half of the clusters."""
    of_row = np.arange(rows) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    count = int(of_row.max()) + 1
    first = np.random.default_rng([seed, 2]).permutation(count) < (count + 1) // 2
    return np.asarray(first[of_row], dtype=bool)


def _cheapest(chance: Floats, positive: Booleans, wrong: float, missed: float) -> float:
    levels, place = np.unique(chance, return_inverse=True)
    positives = np.bincount(place, weights=positive, minlength=len(levels))
    negatives = np.bincount(place, minlength=len(levels)) - positives
    # Acting from level i on: positives below it are missed, negatives from it on are acted on in vain.
    below = np.concatenate([[0.0], np.cumsum(positives)])
    above = np.concatenate([np.cumsum(negatives[::-1])[::-1], [0.0]])
    cost = above * wrong + below * missed
    between = np.concatenate([[0.0], (levels[:-1] + levels[1:]) / 2, [NEVER]])
    best = np.flatnonzero(cost <= cost.min() * (1 + 1e-12))
    bayes = wrong / (wrong + missed)
    return float(between[best[np.argmin(np.abs(between[best] - bayes))]])


def _mean_cost(acted: Booleans, positive: Booleans, wrong: float, missed: float) -> float:
    return float((acted & ~positive).mean()) * wrong + float((~acted & positive).mean()) * missed


def _cost_kernel(acted: Booleans, positive: Booleans, wrong: float, missed: float) -> Kernel:
    codes = np.where(acted & ~positive, 1, np.where(~acted & positive, 2, 0))
    added = sparse.csr_array(np.array([[0.0, 1.0], [wrong, 1.0], [missed, 1.0]]))
    return Kernel(
        (Part(Sums(added=added, codes=codes), lambda lines: np.asarray(lines[:, 0] / lines[:, 1])),)
    )
