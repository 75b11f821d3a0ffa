"""What a window must show before a version gets more requests: a figure that is missing never passes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.records import Outcome
from airflow_provider_xops.serving.targets.base import Observation, VersionFigures
from airflow_provider_xops.serving.targets.health import (
    HealthCondition,
    breached,
    is_hopeless,
    judge_figures,
)

FIGURES = st.builds(
    VersionFigures,
    requests=st.integers(0, 500),
    errors=st.integers(0, 500),
    p99_ms=st.none() | st.floats(0, 1e4) | st.just(float("inf")),
)


def judged(condition: HealthCondition, golden: bool = True, **figures: VersionFigures) -> tuple[str, ...]:
    observed = Observation(versions={int(name[1:]): each for name, each in figures.items()}, seconds=60)
    gates = judge_figures(condition, observed, candidate=2, previous=1)
    return breached(condition, gates, golden_passed=golden)


def well(requests: int = 1000, errors: int = 0, p99_ms: float | None = 10.0) -> VersionFigures:
    return VersionFigures(requests=requests, errors=errors, p99_ms=p99_ms)


@pytest.mark.parametrize(
    ("condition", "candidate", "reason"),
    [
        ({}, well(), ""),
        ({}, well(errors=10), ""),
        ({}, well(errors=11), "error_rate: 0.011 is above 0.01"),
        ({"max_p99_ms": 9.0}, well(), "p99_ms: 10 is above 9"),
        ({"max_p99_ms": 11.0}, well(p99_ms=None), "p99_ms: the target has no figure"),
        ({"max_p99_ms": 11.0}, well(p99_ms=float("inf")), "p99_ms: it is above all that the target measures"),
        ({"max_p99_ratio": 1.5}, well(p99_ms=29.0), ""),
        ({"max_p99_ratio": 1.5}, well(p99_ms=31.0), "p99_ratio: 1.55 is above 1.5"),
        ({"min_requests": 1001}, well(), "requests: 1000 came in 60 s, 1001 are needed"),
    ],
)
def test_a_limit_that_is_passed_is_named(
    condition: dict[str, Any], candidate: VersionFigures, reason: str
) -> None:
    found = judged(HealthCondition(**condition), v1=well(p99_ms=20.0), v2=candidate)

    assert found == ((reason,) if reason else ())


def test_without_requests_the_golden_answers_decide_only_if_that_was_said() -> None:
    assert judged(HealthCondition(), v1=well()) == ()
    assert judged(HealthCondition(max_p99_ms=1.0), v1=well()) == ()
    assert "nothing was measured" in judged(HealthCondition(), golden=False, v1=well())[0]
    (short, *missing) = judged(HealthCondition(min_requests=1), v1=well())
    assert short == "requests: 0 came in 60 s, 1 are needed"
    assert missing == ["error_rate: no request came"]


def test_the_ratio_goes_by_an_earlier_window_where_the_previous_version_gets_nothing_any_more() -> None:
    condition = HealthCondition(max_p99_ratio=1.5)
    alone = Observation(versions={2: well(p99_ms=31.0)}, seconds=60)

    def outcome(baseline: float | None) -> Outcome:
        gates = judge_figures(condition, alone, candidate=2, previous=1, baseline_ms=baseline)
        return next(gate.outcome for gate in gates if gate.gate == "p99_ratio")

    assert outcome(20.0) is Outcome.FAILED
    assert outcome(30.0) is Outcome.PASSED
    assert outcome(None) is Outcome.NO_DATA
    first = judge_figures(condition, alone, candidate=2, previous=None)
    assert "p99_ratio" not in {gate.gate for gate in first}


@given(
    st.builds(
        HealthCondition,
        max_error_rate=st.none() | st.floats(0, 1),
        max_p99_ms=st.none() | st.floats(0, 1e4),
        max_p99_ratio=st.none() | st.floats(0, 100),
        min_requests=st.integers(0, 600),
    ),
    st.none() | st.dictionaries(st.sampled_from([1, 2, 3]), FIGURES),
    st.booleans(),
)
def test_nothing_passes_that_was_not_measured(
    condition: HealthCondition, versions: dict[int, VersionFigures] | None, golden: bool
) -> None:
    observed = None if versions is None else Observation(versions=versions, seconds=1)
    gates = judge_figures(condition, observed, candidate=2, previous=1)
    reasons = breached(condition, gates, golden_passed=golden)
    figures = (versions or {}).get(2)

    if reasons:
        return
    if figures is None or figures.requests == 0:
        assert golden
        assert condition.min_requests == 0
        return
    assert figures.requests >= condition.min_requests
    if condition.max_error_rate is not None:
        assert figures.errors / figures.requests <= condition.max_error_rate
    if condition.max_p99_ms is not None:
        assert figures.p99_ms is not None
        assert figures.p99_ms <= condition.max_p99_ms
    if condition.max_p99_ratio is not None:
        before = (versions or {})[1]
        assert figures.p99_ms is not None
        assert before.p99_ms
        assert figures.p99_ms / before.p99_ms <= condition.max_p99_ratio


def test_a_window_ends_early_only_when_enough_requests_have_said_no() -> None:
    condition = HealthCondition(max_error_rate=0.1)

    def hopeless(requests: int, errors: int, **more: Any) -> bool:
        chosen = HealthCondition(max_error_rate=0.1, **more) if more else condition
        observed = Observation(versions={2: well(requests, errors)}, seconds=1)
        return is_hopeless(chosen, judge_figures(chosen, observed, candidate=2, previous=1))

    assert not hopeless(19, 19)
    assert hopeless(20, 3)
    assert not hopeless(20, 2)
    assert not hopeless(20, 20, min_requests=21)


@pytest.mark.parametrize(
    "given",
    [
        {"max_error_rate": 1.1}, {"max_error_rate": -0.1}, {"max_p99_ms": float("nan")}, {"min_requests": -1},
        {"min_requests": 1.5}, {"min_requests": True}, {"golden": "yes"}, {"max_p99": 3}, {"tolerance": None},
    ],
)  # fmt: skip
def test_a_condition_that_cannot_be_meant_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as raised:
        HealthCondition.of(given)

    assert raised.value.code == "argument.health"


def test_a_condition_survives_its_record() -> None:
    condition = HealthCondition(max_error_rate=0.0, max_p99_ms=3.5, min_requests=7, golden=False)

    assert HealthCondition.of(condition.to_json()) == condition


def test_a_latency_above_all_buckets_is_a_failure_that_ends_the_window() -> None:
    condition = HealthCondition(max_p99_ms=100)
    slow = Observation(versions={2: well(50, p99_ms=float("inf"))}, seconds=60)
    gates = judge_figures(condition, slow, candidate=2, previous=1)

    assert {gate.gate: gate.outcome for gate in gates}["p99_ms"] is Outcome.FAILED
    assert is_hopeless(condition, gates)
