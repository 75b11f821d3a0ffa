"""Gates about the whole holdout: a metric within bounds, and challenger against champion.

With ``confidence`` the comparison is a statistical statement: the gate asks the evaluation for a test (see
:meth:`Gate.widen`) and passes only if its p-value, corrected for all tests and candidates, is small enough.
Without it the two plain figures are compared, and half of all equally good challengers would pass.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from airflow_provider_xops.evaluation.gates.base import Case, Gate, is_number, known_metric, refused
from airflow_provider_xops.evaluation.plan import EvaluationPlan, MetricTest
from airflow_provider_xops.records import Comparison, Evaluation, GateResult
from airflow_provider_xops.training.metrics import METRICS

__all__ = ["BetterThanChampion", "Bound", "MetricGate", "MetricThreshold", "NotWorseThanChampion"]

Bound = Literal["value", "lower", "upper"]


@dataclass(frozen=True, kw_only=True)
class MetricGate(Gate):
    """A gate about one metric of the whole holdout."""

    metric: str

    def __post_init__(self) -> None:
        super().__post_init__()
        known_metric(self.kind, self.metric)

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.metric}"

    def widen(self, plan: EvaluationPlan) -> EvaluationPlan:
        if plan.metrics is None or self.metric in plan.metrics:
            return plan
        return dataclasses.replace(plan, metrics=(*plan.metrics, self.metric))

    def missing(self, whose: str = "", threshold: float | None = None) -> GateResult:
        """The answer where the figure is not there."""
        return self.no_data(f"{whose}{self.metric} was not measured", threshold)


@dataclass(frozen=True, kw_only=True)
class MetricThreshold(MetricGate):
    """The challenger's figure is at least ``minimum`` and at most ``maximum``; one of them may be left out.

    :param bound: which figure: the ``value``, or the ``lower`` or ``upper`` end of its confidence interval.
        A minimum on the lower end says that the true figure is above it with the evaluation's confidence.

    >>> MetricThreshold(metric="roc_auc", minimum=0.6, bound="lower").name
    'metric_threshold:roc_auc'
    """

    kind: ClassVar[str] = "metric_threshold"

    minimum: float | None = None
    maximum: float | None = None
    bound: Bound = "value"

    def __post_init__(self) -> None:
        super().__post_init__()
        bounds = [bound for bound in (self.minimum, self.maximum) if bound is not None]
        if not bounds:
            raise refused(
                f"gate {self.kind} on {self.metric} has no usable bound",
                "give minimum, maximum or both, as numbers",
            )
        if len(bounds) == 2 and bounds[0] > bounds[1]:
            raise refused(
                f"gate {self.kind} on {self.metric} can never pass: its minimum is above its maximum",
                "swap or correct them",
            )

    def check(self, case: Case) -> GateResult:
        low, high = self.minimum, self.maximum
        threshold = low if low is not None else high
        observed = self._observed(case.evaluation)
        said = self.metric if self.bound == "value" else f"the {self.bound} end of {self.metric}"
        if observed is None:
            if self.bound != "value":
                return self.no_data(f"{said}'s confidence interval was not measured", threshold)
            return self.missing(threshold=threshold)
        if low is not None and observed < low:
            return self.failed(observed, low, f"{said} {observed:.6g} is below {low:g}")
        if high is not None and observed > high:
            return self.failed(observed, high, f"{said} {observed:.6g} is above {high:g}")
        return self.passed(observed, threshold, f"{said} {observed:.6g} is within its bounds")

    def _observed(self, evaluation: Evaluation | None) -> float | None:
        if evaluation is None:
            return None
        if self.bound == "value":
            return _figure(evaluation.metrics.get(self.metric))
        figures = [figure for figure in evaluation.figures if figure.metric == self.metric]
        if len(figures) != 1 or _figure(figures[0].value) is None:
            return None
        return _figure(figures[0].lower if self.bound == "lower" else figures[0].upper)


@dataclass(frozen=True, kw_only=True)
class BetterThanChampion(MetricGate):
    """The challenger is better than the champion by more than ``margin``, both scored on the same rows.

    :param margin: in the metric's unit, in its direction (for ``log_loss`` lower is better); without
        ``confidence`` a negative one tolerates a loss smaller than it.
    :param confidence: such as 0.95: superiority is tested, and the corrected p-value is at most 0.05.

    Without a champion the gate passes, provided the challenger has the figure.
    """

    kind: ClassVar[str] = "better_than_champion"

    margin: float = 0.0
    confidence: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.confidence is not None:
            check_confidence(self.kind, self.confidence)
            if self.margin < 0:
                raise refused(
                    f"gate {self.kind} on {self.metric} has a negative margin and a confidence",
                    f"use gate {NotWorseThanChampion.kind} with margin {-self.margin:g}",
                )

    def widen(self, plan: EvaluationPlan) -> EvaluationPlan:
        wider = super().widen(plan)
        if self.confidence is None:
            return wider
        return wider.with_test(MetricTest(metric=self.metric, hypothesis="superiority", margin=self.margin))

    def check(self, case: Case) -> GateResult:
        pair = _pair(self, case.evaluation)
        if isinstance(pair, GateResult):
            return pair
        mine, theirs = pair
        better = METRICS[self.metric].greater_is_better
        bar = theirs + self.margin if better else theirs - self.margin
        ahead = mine - theirs if better else theirs - mine
        said = f"{self.metric} {mine:.6g} against the champion's {theirs:.6g}"
        if not ahead > self.margin:
            return self.failed(mine, bar, f"{said}: not better by more than {self.margin:g}")
        if self.confidence is None:
            return self.passed(mine, bar, f"{said}: better by {ahead:.3g}")
        return _tested(self, case.evaluation, "superiority", self.margin, self.confidence, mine, bar, said)


@dataclass(frozen=True, kw_only=True)
class NotWorseThanChampion(MetricGate):
    """The challenger is not worse than the champion by ``margin`` or more: a non-inferiority test.

    For a challenger that is simpler, smaller or fairer, and may cost a little of the metric.

    :param margin: in the metric's unit, above 0: the loss that would matter.
    :param confidence: the corrected p-value is at most 1 - ``confidence``.

    Without a champion the gate passes, provided the challenger has the figure.
    """

    kind: ClassVar[str] = "not_worse_than_champion"

    margin: float
    confidence: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.margin <= 0:
            raise refused(
                f"gate {self.kind} on {self.metric} has no usable margin",
                "give the loss that would matter, in the metric's unit and above 0",
            )
        check_confidence(self.kind, self.confidence)

    def widen(self, plan: EvaluationPlan) -> EvaluationPlan:
        return (
            super()
            .widen(plan)
            .with_test(MetricTest(metric=self.metric, hypothesis="non_inferiority", margin=self.margin))
        )

    def check(self, case: Case) -> GateResult:
        pair = _pair(self, case.evaluation)
        if isinstance(pair, GateResult):
            return pair
        mine, theirs = pair
        better = METRICS[self.metric].greater_is_better
        bar = theirs - self.margin if better else theirs + self.margin
        ahead = mine - theirs if better else theirs - mine
        said = f"{self.metric} {mine:.6g} against the champion's {theirs:.6g}"
        if not ahead > -self.margin:
            return self.failed(mine, bar, f"{said}: worse by {-ahead:.3g}, less than {self.margin:g} may be")
        return _tested(
            self, case.evaluation, "non_inferiority", self.margin, self.confidence, mine, bar, said
        )


def check_confidence(kind: str, confidence: float) -> None:
    """
    :raises ArgumentError: ``argument.gate``: it is no share of cases, or not better than a coin.
    """
    if not 0.5 < confidence < 1:
        raise refused(f"gate {kind} has no usable confidence", "give for example 0.95")


def _pair(gate: MetricGate, evaluation: Evaluation | None) -> tuple[float, float] | GateResult:
    """Both figures, or the answer where there are not two."""
    mine = None if evaluation is None else _figure(evaluation.metrics.get(gate.metric))
    if evaluation is None or mine is None:
        return gate.missing()
    if evaluation.champion is None:
        return gate.passed(mine, None, "there is no champion to beat")
    theirs = _figure(evaluation.champion_metrics.get(gate.metric))
    if theirs is None:
        return gate.no_data(f"the champion's {gate.metric} was not measured", observed=mine)
    return mine, theirs


def _tested(
    gate: MetricGate, evaluation: Evaluation | None, hypothesis: str, margin: float, confidence: float,
    mine: float, bar: float, said: str,
) -> GateResult:  # fmt: skip
    """The answer of the test that the evaluation made of exactly this statement."""
    comparison = _test_of(evaluation, gate.metric, hypothesis, margin)
    p_value = None if comparison is None else _figure(comparison.adjusted_p_value)
    word = hypothesis.replace("_", "-")
    if comparison is None or p_value is None or not 0 <= p_value <= 1:
        return gate.no_data(f"{said}: {word} was not tested", bar, mine)
    of = f", corrected for {comparison.comparisons} tests" if comparison.comparisons > 1 else ""
    interval = ""
    if is_number(comparison.difference):
        interval = f", difference {comparison.difference:+.3g}"
        if is_number(comparison.lower) and is_number(comparison.upper):
            interval += f" ({comparison.lower:+.3g} to {comparison.upper:+.3g})"
    alpha = 1 - confidence
    message = (
        f"{said}{interval}: {word} by margin {margin:g}, {comparison.test or 'test'} p = {p_value:.3g}{of}"
    )
    # 1 - 0.95 is a little above 0.05, and a p-value of exactly 0.05 passes either way.
    if p_value <= alpha or math.isclose(p_value, alpha):
        return gate.passed(mine, bar, message)
    return gate.failed(mine, bar, f"{message}, above {alpha:.3g}: it may be chance")


def _test_of(evaluation: Evaluation | None, metric: str, hypothesis: str, margin: float) -> Comparison | None:
    found = [
        each
        for each in (evaluation.comparisons if evaluation else ())
        if each.metric == metric
        and each.hypothesis == hypothesis
        and is_number(each.margin)
        and math.isclose(each.margin, margin, abs_tol=1e-12)
    ]
    # Of two tests of one statement the less favorable one counts; a missing p-value is less than any.
    return min(found, key=_standing, default=None)


def _standing(comparison: Comparison) -> tuple[bool, float]:
    p_value = _figure(comparison.adjusted_p_value)
    return p_value is not None, -(p_value if p_value is not None else 0.0)


def _figure(value: float | None) -> float | None:
    return value if is_number(value) else None
