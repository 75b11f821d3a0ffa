"""What happens after a validation: the suite's one word, and whether the flow goes on.

For validation and its operator.

**Precedence of outcomes.** A suite is *errored* if any of its checks errored (whatever its severity: a check
that could not run says nothing, so nothing is known), else *failed* if any failed, else *no data* if every
check had nothing to look at, else *passed*. Checks about the table's shape (its row count, its columns) run
on a table without rows too, so a suite that demands rows fails there, and any other suite has no data.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Literal

from airflow_provider_xops.errors import ArgumentError, ValidationError
from airflow_provider_xops.records import CheckSummary, Outcome, Severity, ValidationReport

__all__ = ["Action", "apply_policy", "stop_error", "suite_outcome", "worst_severity"]

_BY_WEIGHT = (Severity.CRITICAL, Severity.WARNING, Severity.INFO)
_NAMED_CHECKS = 5


class Action(StrEnum):
    """What the flow does next: go on, stop with an error, or skip what follows."""

    CONTINUE = "continue"
    FAIL = "fail"
    SKIP = "skip"


def suite_outcome(checks: Sequence[CheckSummary], *, rows: int) -> Outcome:
    """The one word for all checks; see the module for the precedence.

    >>> suite_outcome([], rows=0)
    <Outcome.NO_DATA: 'no_data'>
    """
    outcomes = {check.outcome for check in checks}
    for outcome in (Outcome.ERRORED, Outcome.FAILED):
        if outcome in outcomes:
            return outcome
    return Outcome.PASSED if rows and Outcome.PASSED in outcomes else Outcome.NO_DATA


def worst_severity(checks: Sequence[CheckSummary]) -> Severity | None:
    """The highest severity among checks that failed or errored; None if none did."""
    bad = {check.severity for check in checks if check.outcome in (Outcome.FAILED, Outcome.ERRORED)}
    return next((severity for severity in _BY_WEIGHT if severity in bad), None)


def apply_policy(
    report: ValidationReport,
    on_failure: Literal["fail", "warn", "skip"] = "fail",
    *,
    on_error: Literal["fail", "warn"] = "fail",
    on_no_data: Literal["skip", "continue", "fail"] = "skip",
) -> Action:
    """What to do about a report.

    =========  =====================================  =====================================================
    outcome    severity                               action
    =========  =====================================  =====================================================
    passed                                            continue
    failed     below critical                         continue (publishing accepts it too)
    failed     critical                               ``on_failure``: fail, skip, or warn (continue)
    errored    any                                    fail, under every ``on_failure``;
                                                      ``on_error="warn"`` continues
    no data                                           ``on_no_data``: skip, continue or fail
    =========  =====================================  =====================================================

    To continue is not to publish: :func:`~airflow_provider_xops.data.publish.publish` looks at the report
    itself.

    :raises ArgumentError: a policy that is none of these (``argument.policy``).
    """
    for name, value, allowed in (
        ("on_failure", on_failure, ("fail", "warn", "skip")),
        ("on_error", on_error, ("fail", "warn")),
        ("on_no_data", on_no_data, ("skip", "continue", "fail")),
    ):
        if value not in allowed:
            raise ArgumentError(
                f"{name}={value!r} is not a policy",
                code="argument.policy",
                todo=f"use one of {', '.join(allowed)}",
            )
    if report.outcome is Outcome.ERRORED:
        return Action.CONTINUE if on_error == "warn" else Action.FAIL
    if report.outcome is Outcome.NO_DATA:
        return Action(on_no_data)
    if report.outcome is Outcome.FAILED and report.severity is Severity.CRITICAL:
        return Action.CONTINUE if on_failure == "warn" else Action(on_failure)
    return Action.CONTINUE


def stop_error(report: ValidationReport) -> ValidationError:
    """The error that says why the flow stops here: which checks, on which columns, with which counts."""
    bad = [check for check in report.checks if check.outcome in (Outcome.FAILED, Outcome.ERRORED)]
    bad.sort(key=lambda check: (check.outcome is not Outcome.ERRORED, _BY_WEIGHT.index(check.severity)))
    lines = [_line(check) for check in bad[:_NAMED_CHECKS]]
    if len(bad) > _NAMED_CHECKS:
        lines.append(f"and {len(bad) - _NAMED_CHECKS} more")
    word = {
        Outcome.PASSED: "passed",
        Outcome.FAILED: "failed",
        Outcome.ERRORED: "could not be run",
        Outcome.NO_DATA: "had no rows to look at",
    }
    where = ", ".join(report.partitions) if report.partitions else "all partitions"
    todo = {
        Outcome.FAILED: "correct the data at their source and load them again, or change the suite",
        Outcome.ERRORED: "correct the suite: a check that cannot run says nothing about the data",
        Outcome.NO_DATA: "check why nothing was delivered, or allow it with on_no_data",
    }
    return ValidationError(
        f"suite {report.suite} {word[report.outcome]} on {report.dataset} ({where[:200]})",
        code=f"validation.{report.outcome.value}",
        why="; ".join(lines) or f"{report.rows} rows",
        todo=todo.get(report.outcome, "")
        + (f"; the report is at {report.report_uri}" if report.report_uri else ""),
        context={"record_id": report.record_id, "counts": report.counts},
    )


def _line(check: CheckSummary) -> str:
    subject = f"{check.check} on {check.column}" if check.column else check.check
    if check.outcome is Outcome.ERRORED:
        return f"{subject} errored ({check.message})"
    if check.unexpected_count is not None:
        share = f", {check.unexpected_percent:.3g} %" if check.unexpected_percent is not None else ""
        return f"{subject} failed ({check.unexpected_count} values{share})"
    return f"{subject} failed" + (f" (observed {check.observed})" if check.observed is not None else "")
