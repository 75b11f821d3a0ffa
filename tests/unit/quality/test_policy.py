"""From checks to one word, and from the word to what happens next."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.quality.policy import (
    Action,
    apply_policy,
    stop_error,
    suite_outcome,
    worst_severity,
)
from airflow_provider_xops.records import (
    ActorKind,
    CheckSummary,
    DatasetRef,
    Outcome,
    Producer,
    Severity,
    ValidationReport,
)

PASSED, FAILED, ERRORED, NO_DATA = Outcome.PASSED, Outcome.FAILED, Outcome.ERRORED, Outcome.NO_DATA


def summary(outcome: Outcome, severity: Severity = Severity.CRITICAL, **figures: Any) -> CheckSummary:
    return CheckSummary(
        check="expect_column_values_to_be_between",
        column="flight",
        outcome=outcome,
        severity=severity,
        **figures,
    )


def report(outcome: Outcome, severity: Severity | None = None, *checks: CheckSummary) -> ValidationReport:
    return ValidationReport(
        recorded_at=datetime(2026, 1, 1, tzinfo=UTC),
        produced_by=Producer(kind=ActorKind.USER, id="tester"),
        dataset=DatasetRef(lake_id="l", table="flights__raw", table_uuid="u", version=3),
        partitions=("2013-01-01",),
        partition_digests=("d",),
        content_digest="d",
        suite="flights",
        suite_digest="s",
        engine="pandas/1",
        outcome=outcome,
        severity=severity,
        counts={outcome.value: 1},
        rows=0 if outcome is NO_DATA else 10,
        checks=checks,
        report_uri="file:///report.html",
    )


@pytest.mark.parametrize(
    ("outcomes", "rows", "expected"),
    [
        ([PASSED, PASSED], 9, PASSED),
        ([PASSED, NO_DATA], 9, PASSED),
        ([NO_DATA, NO_DATA], 9, NO_DATA),
        ([NO_DATA, PASSED], 0, NO_DATA),
        ([NO_DATA, FAILED], 0, FAILED),
        ([PASSED, FAILED], 9, FAILED),
        ([FAILED, ERRORED, PASSED], 9, ERRORED),
    ],
)
def test_errored_goes_before_failed_before_passed(
    outcomes: list[Outcome], rows: int, expected: Outcome
) -> None:
    assert suite_outcome([summary(outcome) for outcome in outcomes], rows=rows) is expected


@given(
    checks=st.lists(st.builds(summary, st.sampled_from(Outcome), st.sampled_from(Severity)), max_size=8),
    rows=st.integers(0, 3),
)
def test_a_suite_passes_only_if_something_passed_and_nothing_else_happened(
    checks: list[CheckSummary], rows: int
) -> None:
    outcome = suite_outcome(checks, rows=rows)
    outcomes = {check.outcome for check in checks}
    assert (outcome is PASSED) == (rows > 0 and PASSED in outcomes and outcomes <= {PASSED, NO_DATA})
    assert (worst_severity(checks) is None) == (outcome in (PASSED, NO_DATA))


def test_the_worst_severity_is_that_of_what_went_wrong() -> None:
    checks = [summary(PASSED), summary(FAILED, Severity.INFO), summary(ERRORED, Severity.WARNING)]
    assert worst_severity(checks) is Severity.WARNING


@pytest.mark.parametrize(
    ("outcome", "severity", "actions"),
    [
        (PASSED, None, (Action.CONTINUE, Action.CONTINUE, Action.CONTINUE)),
        (FAILED, Severity.WARNING, (Action.CONTINUE, Action.CONTINUE, Action.CONTINUE)),
        (FAILED, Severity.CRITICAL, (Action.FAIL, Action.CONTINUE, Action.SKIP)),
        (ERRORED, Severity.INFO, (Action.FAIL, Action.FAIL, Action.FAIL)),
        (NO_DATA, None, (Action.SKIP, Action.SKIP, Action.SKIP)),
    ],
)
def test_the_policy_says_what_happens_next(
    outcome: Outcome, severity: Severity | None, actions: tuple[Action, ...]
) -> None:
    found = tuple(apply_policy(report(outcome, severity), policy) for policy in ("fail", "warn", "skip"))  # type: ignore[arg-type]
    assert found == actions


def test_what_could_not_run_continues_only_when_that_is_asked_for() -> None:
    errored = report(ERRORED, Severity.CRITICAL)
    assert apply_policy(errored, "warn") is Action.FAIL
    assert apply_policy(errored, "fail", on_error="warn") is Action.CONTINUE


def test_no_data_may_be_a_reason_to_stop_or_to_go_on() -> None:
    assert apply_policy(report(NO_DATA), on_no_data="fail") is Action.FAIL
    assert apply_policy(report(NO_DATA), on_no_data="continue") is Action.CONTINUE


@pytest.mark.parametrize(
    ("name", "value"), product(("on_failure", "on_error", "on_no_data"), ("", "explode"))
)
def test_a_policy_that_is_none_is_refused(name: str, value: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        apply_policy(report(PASSED), **{name: value})
    assert caught.value.code == "argument.policy"
    assert name in str(caught.value)


def test_the_error_names_what_went_wrong_with_its_figures_and_the_report() -> None:
    error = stop_error(
        report(
            ERRORED,
            Severity.CRITICAL,
            summary(PASSED),
            *[summary(FAILED, unexpected_count=n, unexpected_percent=1.5) for n in range(7)],
            summary(ERRORED, message="the dataset has no column 'gate'"),
        )
    )
    assert error.code == "validation.errored"
    assert not error.retryable
    assert "flights__raw@3 (2013-01-01)" in error.what
    assert error.why.startswith(
        "expect_column_values_to_be_between on flight errored (the dataset has no column 'gate')"
    )
    assert "failed (3 values, 1.5 %)" in error.why
    assert error.why.endswith("and 3 more")
    assert "file:///report.html" in error.todo
