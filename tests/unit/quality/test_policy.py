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
    branch_of,
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
    ("on_failure", "failed", "action"),
    [
        ({"critical": "skip"}, [Severity.CRITICAL], Action.SKIP),
        ({"critical": "skip"}, [Severity.WARNING], Action.CONTINUE),
        ({"warning": "skip"}, [Severity.WARNING], Action.SKIP),
        ({"warning": "skip"}, [Severity.CRITICAL], Action.FAIL),
        ({"critical": "warn", "warning": "fail"}, [Severity.CRITICAL], Action.CONTINUE),
        ({"critical": "warn", "warning": "fail"}, [Severity.CRITICAL, Severity.WARNING], Action.FAIL),
        ({"critical": "quarantine", "info": "skip"}, [Severity.CRITICAL, Severity.INFO], Action.QUARANTINE),
        ({"critical": "skip", "warning": "branch"}, [Severity.CRITICAL, Severity.WARNING], Action.BRANCH),
        ("quarantine", [Severity.CRITICAL], Action.QUARANTINE),
        ("branch", [Severity.CRITICAL], Action.BRANCH),
    ],
)
def test_every_severity_may_have_its_word_and_the_strongest_counts(
    on_failure: Any, failed: list[Severity], action: Action
) -> None:
    checks = [summary(FAILED, severity) for severity in failed]
    assert apply_policy(report(FAILED, worst_severity(checks), *checks), on_failure) is action


@given(
    words=st.dictionaries(st.sampled_from(Severity), st.sampled_from(("fail", "warn", "skip")), min_size=1),
    failed=st.lists(st.sampled_from(Severity), min_size=1, max_size=4),
)
def test_a_mapping_does_what_the_strongest_word_alone_would(
    words: dict[Severity, str], failed: list[Severity]
) -> None:
    checks = [summary(FAILED, severity) for severity in failed]
    each = {words.get(severity, "fail" if severity is Severity.CRITICAL else "warn") for severity in failed}
    strongest = next(word for word in ("fail", "skip", "warn") if word in each)
    expected = {"fail": Action.FAIL, "skip": Action.SKIP, "warn": Action.CONTINUE}[strongest]
    assert apply_policy(report(FAILED, worst_severity(checks), *checks), words) is expected


@pytest.mark.parametrize(
    ("outcome", "severity", "policies", "branch"),
    [
        (PASSED, None, {}, "passed"),
        (FAILED, Severity.CRITICAL, {}, "failed"),
        (FAILED, Severity.WARNING, {}, "passed"),
        (FAILED, Severity.WARNING, {"on_failure": {"warning": "branch"}}, "failed"),
        (ERRORED, Severity.INFO, {"on_error": "branch"}, "errored"),
        (ERRORED, Severity.INFO, {"on_error": "warn"}, "passed"),
        (NO_DATA, None, {"on_no_data": "branch"}, "no_data"),
        (NO_DATA, None, {"on_no_data": "continue"}, "passed"),
    ],
)
def test_every_outcome_has_a_branch(
    outcome: Outcome, severity: Severity | None, policies: dict[str, Any], branch: str
) -> None:
    policies = {"on_failure": "branch", **policies}
    found = report(outcome, severity)
    assert apply_policy(found, **policies) is Action.BRANCH
    assert branch_of(found, **policies) == branch


def test_what_does_not_branch_stops_as_without_branches() -> None:
    assert apply_policy(report(ERRORED, Severity.INFO), "branch") is Action.FAIL
    assert apply_policy(report(NO_DATA), "branch") is Action.SKIP


@pytest.mark.parametrize(
    "on_failure",
    [{}, {"critical": "explode"}, {"fatal": "fail"}, {"warning": "quarantine"}, {"critical": None}, None, 3],
)
def test_a_mapping_that_is_no_policy_is_refused_before_the_report_is_looked_at(on_failure: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        apply_policy(report(PASSED), on_failure)
    assert caught.value.code == "argument.policy"


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
