"""Gates about the whole holdout pass only on a figure, or a test, that exists and meets them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.evaluation.gates import (
    BetterThanChampion,
    Gate,
    MetricThreshold,
    NotWorseThanChampion,
)
from airflow_provider_xops.evaluation.plan import EvaluationPlan, MetricTest
from airflow_provider_xops.records import Comparison, MetricFigure, Outcome
from airflow_provider_xops.training.metrics import METRICS
from tests.unit.evaluation.gates.cases import answer, evaluated

PASSED, FAILED, NO_DATA = Outcome.PASSED, Outcome.FAILED, Outcome.NO_DATA
figure = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))


def outcome(gate: Gate, challenger: float | None, champion: float | str | None = "none") -> Outcome:
    metric = gate.to_json()["metric"]
    there = not isinstance(champion, str)
    theirs = {metric: champion} if there else {}
    return answer(
        gate, evaluated(champion=there, metrics={metric: challenger}, champion_metrics=theirs)
    ).outcome


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (0.6, PASSED),
        (0.7, PASSED),
        (0.9, PASSED),
        (0.5999, FAILED),
        (0.9001, FAILED),
        (None, NO_DATA),
        (math.nan, NO_DATA),
        (math.inf, NO_DATA),
    ],
)
def test_a_threshold_includes_its_bounds(observed: float | None, expected: Outcome) -> None:
    assert outcome(MetricThreshold(metric="roc_auc", minimum=0.6, maximum=0.9), observed) is expected


def test_a_threshold_reports_its_figures() -> None:
    result = answer(MetricThreshold(metric="mae", maximum=5), evaluated(metrics={"mae": 7.5}))
    assert (result.gate, result.observed, result.threshold) == ("metric_threshold:mae", 7.5, 5)
    assert "7.5 is above 5" in result.message


@pytest.mark.parametrize(
    ("bound", "lower", "upper", "expected"),
    [
        ("lower", 0.65, 0.75, PASSED),
        ("lower", 0.55, 0.95, FAILED),
        ("lower", None, 0.75, NO_DATA),
        ("lower", math.nan, 0.75, NO_DATA),
        ("upper", 0.1, 0.61, PASSED),
        ("upper", 0.65, None, NO_DATA),
    ],
)
def test_a_threshold_on_an_end_of_the_interval(
    bound: Any, lower: float | None, upper: float | None, expected: Outcome
) -> None:
    measured = MetricFigure(metric="roc_auc", value=0.7, lower=lower, upper=upper, confidence=0.95)
    gate = MetricThreshold(metric="roc_auc", minimum=0.6, bound=bound)
    assert answer(gate, evaluated(metrics={"roc_auc": 0.7}, figures=(measured,))).outcome is expected


def test_an_interval_without_its_value_or_measured_twice_is_no_data() -> None:
    gate = MetricThreshold(metric="roc_auc", minimum=0.6, bound="lower")
    bare = MetricFigure(metric="roc_auc", value=None, lower=0.7, upper=0.8)
    other = MetricFigure(metric="roc_auc", value=0.75, lower=0.7, upper=0.8)
    assert answer(gate, evaluated(metrics={"roc_auc": 0.7}, figures=(bare,))).outcome is NO_DATA
    assert answer(gate, evaluated(metrics={"roc_auc": 0.7}, figures=(other, other))).outcome is NO_DATA
    assert answer(gate, evaluated(metrics={"roc_auc": 0.7})).outcome is NO_DATA


@pytest.mark.parametrize(
    ("metric", "margin", "challenger", "champion", "expected"),
    [
        ("roc_auc", 0.0, 0.75, 0.5, PASSED),
        ("roc_auc", 0.0, 0.5, 0.5, FAILED),
        ("roc_auc", 0.25, 0.75, 0.5, FAILED),
        ("roc_auc", -0.25, 0.375, 0.5, PASSED),
        ("log_loss", 0.0, 0.25, 0.5, PASSED),
        ("log_loss", 0.0, 0.75, 0.5, FAILED),
        ("log_loss", 0.125, 0.25, 0.5, PASSED),
        ("roc_auc", 0.0, None, 0.5, NO_DATA),
        ("roc_auc", 0.0, 0.5, None, NO_DATA),
        ("roc_auc", 0.0, 0.5, math.nan, NO_DATA),
        ("roc_auc", 0.0, 0.5, "none", PASSED),
        ("roc_auc", 0.0, None, "none", NO_DATA),
        ("roc_auc", 0.0, math.nan, "none", NO_DATA),
    ],
)
def test_better_means_by_more_than_the_margin_in_the_metrics_direction(
    metric: str, margin: float, challenger: float | None, champion: Any, expected: Outcome
) -> None:
    assert outcome(BetterThanChampion(metric=metric, margin=margin), challenger, champion) is expected


def test_better_than_champion_reports_the_bar() -> None:
    evaluation = evaluated(metrics={"log_loss": 0.5}, champion_metrics={"log_loss": 0.75})
    assert answer(BetterThanChampion(metric="log_loss", margin=0.125), evaluation).threshold == 0.625


def a_statement(p_value: float | None, **changes: Any) -> Comparison:
    values: dict[str, Any] = {
        "metric": "roc_auc", "greater_is_better": True, "challenger": 0.7, "champion": 0.68,
        "difference": 0.02, "lower": 0.001, "upper": 0.039, "hypothesis": "superiority", "test": "delong",
        "p_value": 0.001, "adjusted_p_value": p_value, "comparisons": 3, "significant": True,
    }  # fmt: skip
    return Comparison(**(values | changes))


SUPERIOR = BetterThanChampion(metric="roc_auc", confidence=0.95)
NOT_WORSE = NotWorseThanChampion(metric="roc_auc", margin=0.05)


@pytest.mark.parametrize(
    ("comparisons", "expected"),
    [
        ((a_statement(0.01),), PASSED),
        ((a_statement(0.05),), PASSED),
        ((a_statement(0.0501),), FAILED),
        # The value before the correction and what the evaluation made of it are not what counts.
        ((a_statement(None),), NO_DATA),
        ((a_statement(math.nan),), NO_DATA),
        ((a_statement(-0.1),), NO_DATA),
        ((a_statement(1.5),), NO_DATA),
        ((), NO_DATA),
        ((a_statement(0.01, hypothesis=""),), NO_DATA),
        ((a_statement(0.01, hypothesis="non_inferiority"),), NO_DATA),
        ((a_statement(0.01, metric="accuracy"),), NO_DATA),
        ((a_statement(0.01, margin=0.01),), NO_DATA),
        # Of two tests of one statement the less favorable one counts.
        ((a_statement(0.01), a_statement(0.2)), FAILED),
        ((a_statement(0.01), a_statement(None)), NO_DATA),
    ],
)
def test_confidence_needs_the_test_of_exactly_this_statement(comparisons: Any, expected: Outcome) -> None:
    evaluation = evaluated(
        metrics={"roc_auc": 0.7}, champion_metrics={"roc_auc": 0.68}, comparisons=comparisons
    )
    assert answer(SUPERIOR, evaluation).outcome is expected


def test_a_significant_test_does_not_outweigh_figures_that_say_otherwise() -> None:
    worse = evaluated(
        metrics={"roc_auc": 0.6}, champion_metrics={"roc_auc": 0.68}, comparisons=(a_statement(0.001),)
    )
    assert answer(SUPERIOR, worse).outcome is FAILED


@pytest.mark.parametrize(
    ("challenger", "p_value", "expected"),
    [(0.66, 0.01, PASSED), (0.66, 0.2, FAILED), (0.62, 0.01, FAILED), (0.66, None, NO_DATA)],
)
def test_not_worse_by_the_margin(challenger: float, p_value: float | None, expected: Outcome) -> None:
    comparison = a_statement(p_value, hypothesis="non_inferiority", margin=0.05)
    evaluation = evaluated(
        metrics={"roc_auc": challenger}, champion_metrics={"roc_auc": 0.68}, comparisons=(comparison,)
    )
    assert answer(NOT_WORSE, evaluation).outcome is expected


@pytest.mark.parametrize("gate", [SUPERIOR, NOT_WORSE])
def test_without_a_champion_there_is_nothing_to_test_but_the_figure_must_be_there(gate: Gate) -> None:
    assert answer(gate, evaluated(champion=False, metrics={"roc_auc": 0.7})).outcome is PASSED
    assert answer(gate, evaluated(champion=False, metrics={"roc_auc": None})).outcome is NO_DATA
    assert answer(gate, None).outcome is NO_DATA


def test_gates_ask_the_plan_for_the_tests_and_metrics_they_need() -> None:
    plan = EvaluationPlan(metrics=("accuracy",))
    for gate in (SUPERIOR, SUPERIOR, NOT_WORSE, MetricThreshold(metric="brier", maximum=0.3)):
        plan = gate.widen(plan)
    assert plan.metrics == ("accuracy", "roc_auc", "brier")
    assert plan.tests == (
        MetricTest(metric="roc_auc"),
        MetricTest(metric="roc_auc", hypothesis="non_inferiority", margin=0.05),
    )
    assert BetterThanChampion(metric="roc_auc").widen(EvaluationPlan()) == EvaluationPlan()


@given(st.sampled_from(sorted(METRICS)), figure, figure, st.floats(0, 1), figure)
def test_nothing_that_was_not_measured_ever_passes(
    metric: str, challenger: float | None, champion: float | None, margin: float, p_value: float | None
) -> None:
    comparisons = tuple(
        a_statement(p_value, metric=metric, hypothesis=hypothesis, margin=margin or 0.1)
        for hypothesis in ("superiority", "non_inferiority")
    )
    evaluation = evaluated(
        metrics={metric: challenger}, champion_metrics={metric: champion}, comparisons=comparisons
    )
    gates: list[Gate] = [
        MetricThreshold(metric=metric, minimum=-1e300, maximum=1e300),
        BetterThanChampion(metric=metric, margin=-margin),
        BetterThanChampion(metric=metric, margin=margin, confidence=0.95),
        NotWorseThanChampion(metric=metric, margin=margin or 0.1),
    ]
    for gate in gates:
        result = answer(gate, evaluation)
        if challenger is None or not math.isfinite(challenger):
            assert result.outcome is NO_DATA
        if result.outcome is PASSED:
            assert result.observed is not None
            assert math.isfinite(result.observed)
            if not isinstance(gate, MetricThreshold):
                assert champion is not None
                assert math.isfinite(champion)
            if "confidence" in gate.to_json() and gate.to_json()["confidence"]:
                assert p_value is not None
                assert 0 <= p_value <= 0.05 + 1e-9
