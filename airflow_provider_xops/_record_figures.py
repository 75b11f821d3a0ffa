"""The values that an evaluation is made of: figures with their intervals, tests, slices, gaps, curves.

Private to :mod:`airflow_provider_xops.records`, which gives them to everybody. A figure that was not measured
is None, never 0. Differences are challenger minus champion, in the metric's own unit.
"""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_xops._record_values import Outcome

__all__ = [
    "Calibration",
    "CalibrationBin",
    "Comparison",
    "FairnessFigure",
    "FeatureImportance",
    "GoldenPredictions",
    "GroupFigure",
    "LearningPoint",
    "MetricFigure",
    "RobustnessFigure",
    "SkewFigure",
    "SliceFigure",
    "ThresholdChoice",
]


@dataclass(frozen=True, kw_only=True)
class MetricFigure:
    """One metric of one model on one set of rows, with its confidence interval.

    :param lower: the interval's ends at ``confidence`` (0.95 for example); None where there is no interval.
    :param method: how the interval was made: ``bca``, ``percentile``, ``delong``.
    :param rows: how many rows it was measured on.
    """

    metric: str
    value: float | None
    lower: float | None = None
    upper: float | None = None
    confidence: float | None = None
    method: str = ""
    rows: int = 0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Challenger against champion on one metric, both computed on the same rows, row by row.

    :param difference: challenger minus champion, with the interval ``lower`` to ``upper`` at ``confidence``.
    :param hypothesis: what was tested: ``superiority`` (better by more than ``margin``) or
        ``non_inferiority`` (not worse by ``margin`` or more); empty where nothing was tested.
    :param p_value: of the test, one-sided; ``adjusted_p_value`` after the correction for ``comparisons`` of
        them.
    :param significant: whether the adjusted value is at most 1 - ``confidence``.
    """

    metric: str
    greater_is_better: bool
    challenger: float | None
    champion: float | None
    difference: float | None
    lower: float | None = None
    upper: float | None = None
    confidence: float | None = None
    hypothesis: str = ""
    margin: float = 0.0
    test: str = ""
    p_value: float | None = None
    adjusted_p_value: float | None = None
    correction: str = ""
    comparisons: int = 1
    significant: bool | None = None


@dataclass(frozen=True, kw_only=True)
class SliceFigure:
    """A model's metric on some of the rows, against the rows outside.

    :param conditions: in words, ``origin = 'JFK' and 600 <= distance < 1000``.
    :param share: of all rows. :param rest: the metric on the rows outside the slice.
    :param p_value: that the slice is no worse than the rest; ``adjusted_p_value`` corrected for all slices
        that were looked at.
    :param champion: the champion's metric on the slice; the difference (challenger minus champion) with its
        interval.
    :param found: it was searched for, not named. :param weak: it is worse than the rest beyond chance.
    """

    name: str
    conditions: str
    metric: str
    rows: int
    share: float
    value: float | None
    lower: float | None = None
    upper: float | None = None
    rest: float | None = None
    p_value: float | None = None
    adjusted_p_value: float | None = None
    champion: float | None = None
    champion_difference: float | None = None
    champion_difference_lower: float | None = None
    champion_difference_upper: float | None = None
    found: bool = False
    weak: bool = False


@dataclass(frozen=True, kw_only=True)
class CalibrationBin:
    """Rows whose predicted probability lies in one bin, and how often the event really came."""

    lower: float
    upper: float
    rows: int
    predicted: float | None
    observed: float | None
    observed_lower: float | None = None
    observed_upper: float | None = None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Whether predicted probabilities mean what they say.

    :param expected_error: expected calibration error, the mean gap weighted by rows, with its interval.
    :param maximum_error: the largest gap of a bin.
    :param intercept: of the logistic recalibration line (0 is perfect); ``slope`` likewise (1 is perfect).
    """

    bins: tuple[CalibrationBin, ...]
    expected_error: float | None
    expected_error_lower: float | None = None
    expected_error_upper: float | None = None
    maximum_error: float | None = None
    intercept: float | None = None
    slope: float | None = None
    p_value: float | None = None
    test: str = ""


@dataclass(frozen=True, kw_only=True)
class ThresholdChoice:
    """The probability from which on to act, by what mistakes cost.

    :param cost: the mean cost of a row at ``threshold``, measured on rows the choice did not see, with its
        interval; ``default_cost`` at 0.5; ``best_constant_cost`` of always or never acting.
    """

    threshold: float
    false_positive_cost: float
    false_negative_cost: float
    cost: float | None
    lower: float | None = None
    upper: float | None = None
    default_cost: float | None = None
    best_constant_cost: float | None = None
    rows_chosen_on: int = 0
    rows_measured_on: int = 0


@dataclass(frozen=True, kw_only=True)
class GroupFigure:
    """A metric of one group of people (or things)."""

    group: str
    rows: int
    value: float | None
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True, kw_only=True)
class FairnessFigure:
    """A metric by group of one attribute, and the largest gap between two groups with its interval.

    :param criterion: the fairness definition that the metric stands for (``demographic_parity``,
        ``equal_opportunity``, ...); empty for plain metrics.
    :param ratio: smallest over largest value.
    :param left_out: groups with too few rows to be compared.
    """

    attribute: str
    metric: str
    criterion: str
    groups: tuple[GroupFigure, ...]
    gap: float | None
    gap_lower: float | None = None
    gap_upper: float | None = None
    ratio: float | None = None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FeatureImportance:
    """How much a model rests on a feature: the metric's loss when it is permuted, or mean absolute SHAP
    value."""

    feature: str
    method: str
    value: float
    lower: float | None = None
    upper: float | None = None
    metric: str = ""


@dataclass(frozen=True, kw_only=True)
class RobustnessFigure:
    """The metric when the input is disturbed: one point of a degradation curve.

    :param level: how strong, in the perturbation's own unit (share of cells, standard deviations).
    :param loss: by how much worse than undisturbed (positive is worse); ``lower`` and ``upper`` are the ends
        of its interval.
    """

    perturbation: str
    level: float
    metric: str
    value: float | None
    baseline: float | None
    loss: float | None
    lower: float | None = None
    upper: float | None = None
    feature: str = ""


@dataclass(frozen=True, kw_only=True)
class SkewFigure:
    """One feature at training against the same feature where the model scores."""

    feature: str
    method: str
    statistic: float | None
    threshold: float | None
    outcome: Outcome
    p_value: float | None = None
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class LearningPoint:
    """The metric after learning from ``rows`` rows: one point of a learning curve."""

    rows: int
    share: float
    metric: str
    value: float | None
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True, kw_only=True)
class GoldenPredictions:
    """What a model said at training about some rows of its holdout: a later load must say the same.

    Only predictions are kept; the rows stay in the lake and are read again by their place in the holdout.

    :param rows: places in the holdout selection, 0 is its first row.
    :param labels: the predicted class or number of each, as text exact to the last digit (``repr``).
    :param scores: the probabilities of each, one inner tuple a row, in the order of ``classes``; empty where
        the model gives none.
    """

    rows: tuple[int, ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...] = ()
    scores: tuple[tuple[float, ...], ...] = ()
