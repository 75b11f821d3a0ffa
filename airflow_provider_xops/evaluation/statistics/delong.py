"""The variance of the area under the ROC curve, and of the difference of two of them on the same rows.

For intervals and comparisons. Without resampling and without an assumption on how scores are distributed.
Sources: DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44; the fast form by ranks of Sun and Xu (2014),
IEEE Signal Processing Letters 21; degrees of freedom of Satterthwaite (1946), Biometrics Bulletin 2, because
the variance of few positives is itself uncertain, which the normal distribution ignores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

__all__ = ["AreaCovariance", "covariance", "difference", "interval"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AreaCovariance:
    """Areas of some models on the same rows, and the covariance of their estimates.

    :param of_positives: what the positives add to the covariance; ``of_negatives`` likewise. NaN where the
        class has fewer than two rows.
    :param counts: how many positives and negatives there are.
    """

    areas: Floats
    of_positives: Floats
    of_negatives: Floats
    counts: tuple[int, int]

    @property
    def matrix(self) -> Floats:
        """The covariance of the areas; NaN where a class has fewer than two rows."""
        return np.asarray(self.of_positives + self.of_negatives)


def covariance(positive: Any, scores: Sequence[Any]) -> AreaCovariance:
    """DeLong's covariance.

    :param positive: which rows are of the positive class. :param scores: one array a model, higher means
        more likely positive.

    >>> both = covariance([1, 1, 1, 0, 0, 0], [[0.9, 0.8, 0.3, 0.4, 0.2, 0.1]])
    >>> round(float(both.areas[0]), 4), round(float(both.matrix[0, 0]), 4)
    (0.8889, 0.0247)
    """
    chosen = np.asarray(positive, dtype=bool)
    placed = [_placements(chosen, np.asarray(each, dtype=np.float64)) for each in scores]
    of_positives = np.vstack([first for first, _ in placed])
    of_negatives = np.vstack([second for _, second in placed])
    return AreaCovariance(
        areas=of_positives.mean(axis=1), of_positives=_of_mean(of_positives),
        of_negatives=_of_mean(of_negatives), counts=(of_positives.shape[1], of_negatives.shape[1]),
    )  # fmt: skip


def interval(one: AreaCovariance, confidence: float) -> tuple[float, float] | None:
    """The interval of the first area, symmetric on the logit scale; None where the variance is zero or
    unknown."""
    area = float(one.areas[0])
    error, degrees = _error(one, np.eye(len(one.areas))[0])
    if not error > 0 or not 0 < area < 1:
        return None
    half = quantile((1 + confidence) / 2, degrees) * error / (area * (1 - area))
    center = float(special.logit(area))
    return float(special.expit(center - half)), float(special.expit(center + half))


def difference(both: AreaCovariance) -> tuple[float, float, float]:
    """First minus second area, its standard error (NaN where it is not known), and the degrees of freedom."""
    return float(both.areas[0] - both.areas[1]), *_error(both, np.array([1.0, -1.0]))


def quantile(level: float, degrees: float) -> float:
    """Of Student's distribution."""
    return float(special.stdtrit(degrees, level))


def below(value: float, degrees: float) -> float:
    """The share of Student's distribution that is below ``value``."""
    return float(special.stdtr(degrees, value))


def _error(areas: AreaCovariance, weights: Floats) -> tuple[float, float]:
    """The standard error of the weighted sum of the areas, and its degrees of freedom."""
    parts = [float(weights @ part @ weights) for part in (areas.of_positives, areas.of_negatives)]
    # Rounding leaves next to nothing, or less, where two models rank alike.
    tiny = 1e-14 * float(np.trace(areas.matrix))
    parts = [0.0 if part <= tiny else part for part in parts]
    if not sum(parts) > 0:
        return math.sqrt(sum(parts)), math.nan
    squares = sum(part**2 / (count - 1) for part, count in zip(parts, areas.counts, strict=True))
    return math.sqrt(sum(parts)), sum(parts) ** 2 / squares


def _of_mean(placements: Floats) -> Floats:
    """The covariance of the means of these lines."""
    lines, count = placements.shape
    if count < 2:
        return np.full((lines, lines), np.nan)
    return np.asarray(np.atleast_2d(np.cov(placements)) / count)


def _placements(positive: npt.NDArray[np.bool_], scores: Floats) -> tuple[Floats, Floats]:
    """Of each positive the share of negatives below it; of each negative the share of positives above."""
    above, below = scores[positive], scores[~positive]
    return _share_below(above, below), 1.0 - _share_below(below, above)


def _share_below(values: Floats, others: Floats) -> Floats:
    """Of each value the share of ``others`` that are smaller, ties half."""
    ordered = np.sort(others)
    low, high = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return (low + high) / (2.0 * len(others))
