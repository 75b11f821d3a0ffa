"""What happens after a validation: the suite's one word, and whether the flow goes on.

For validation and its operator.

**Precedence of outcomes.** A suite is *errored* if any of its checks errored (whatever its severity: a check
that could not run says nothing, so nothing is known), else *failed* if any failed, else *no data* if every
check had nothing to look at, else *passed*. Checks about the table's shape (its row count, its columns) run
on a table without rows too, so a suite that demands rows fails there, and any other suite has no data.

**Policies.** ``on_failure`` is one word, which is about critical failures (what failed below goes on), or a
mapping of severities to words. Of a report that failed at several severities the strongest word counts, in
the order *fail, quarantine, branch, skip, warn*; a severity that the mapping does not name goes on, critical
excepted: it fails. ``quarantine`` is a word for critical failures only: nothing else parts rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal

from airflow_provider_xops.errors import ArgumentError, ValidationError
from airflow_provider_xops.records import CheckSummary, Outcome, Severity, ValidationReport

__all__ = [
    "POLICIES",
    "Action",
    "apply_policy",
    "branch_of",
    "check_policy",
    "failure_policy",
    "stop_error",
    "suite_outcome",
    "worst_severity",
]

#: The words that each policy takes.
POLICIES: dict[str, tuple[str, ...]] = {
    "on_failure": ("fail", "warn", "skip", "quarantine", "branch"),
    "on_error": ("fail", "warn", "branch"),
    "on_no_data": ("skip", "continue", "fail", "branch"),
}

_BY_WEIGHT = (Severity.CRITICAL, Severity.WARNING, Severity.INFO)
_NAMED_CHECKS = 5


class Action(StrEnum):
    """What the flow does next: go on, stop with an error, skip what follows, go on with the good rows only,
    or follow the branch of the outcome."""

    CONTINUE = "continue"
    FAIL = "fail"
    SKIP = "skip"
    QUARANTINE = "quarantine"
    BRANCH = "branch"


_ACTIONS = {
    "fail": Action.FAIL,
    "quarantine": Action.QUARANTINE,
    "branch": Action.BRANCH,
    "skip": Action.SKIP,
    "warn": Action.CONTINUE,
    "continue": Action.CONTINUE,
}
_BY_STRENGTH = (Action.FAIL, Action.QUARANTINE, Action.BRANCH, Action.SKIP, Action.CONTINUE)


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


def failure_policy(on_failure: str | Mapping[str, str]) -> dict[Severity, Action]:
    """What a failure of each severity does.

    :raises ArgumentError: a word or a severity that there is not (``argument.policy``).

    >>> failure_policy("skip")[Severity.CRITICAL], failure_policy("skip")[Severity.WARNING]
    (<Action.SKIP: 'skip'>, <Action.CONTINUE: 'continue'>)
    >>> failure_policy({"warning": "fail"})[Severity.CRITICAL]
    <Action.FAIL: 'fail'>
    """
    words = on_failure if isinstance(on_failure, Mapping) else {Severity.CRITICAL.value: on_failure}
    if not words:
        raise _refused("on_failure={}", "is empty", "name a severity, or pass one word")
    policy = {
        Severity.CRITICAL: Action.FAIL,
        Severity.WARNING: Action.CONTINUE,
        Severity.INFO: Action.CONTINUE,
    }
    for name, word in words.items():
        if name not in set(Severity):
            raise _refused(
                f"on_failure={{{str(name)[:40]!r}: ...}}", "names no severity",
                f"use {', '.join(severity.value for severity in Severity)}",
            )  # fmt: skip
        _check_word("on_failure", word)
        if word == "quarantine" and name != Severity.CRITICAL:
            raise _refused(
                f"on_failure={{{str(name)!r}: 'quarantine'}}", "is not a policy",
                "only critical checks part rows: raise the check's severity, or use another word",
            )  # fmt: skip
        policy[Severity(name)] = _ACTIONS[word]
    return policy


def check_policy(
    on_failure: str | Mapping[str, str] = "fail", *, on_error: str = "fail", on_no_data: str = "skip"
) -> None:
    """Refuse what is not a policy, before anything is looked at.

    :raises ArgumentError: ``argument.policy``.
    """
    failure_policy(on_failure)
    _check_word("on_error", on_error)
    _check_word("on_no_data", on_no_data)


def apply_policy(
    report: ValidationReport,
    on_failure: str | Mapping[str, str] = "fail",
    *,
    on_error: Literal["fail", "warn", "branch"] | str = "fail",
    on_no_data: Literal["skip", "continue", "fail", "branch"] | str = "skip",
) -> Action:
    """What to do about a report.

    =========  =====================================  =====================================================
    outcome    severity                               action
    =========  =====================================  =====================================================
    passed                                            continue
    failed     below critical                         continue (publishing accepts it too), unless
                                                      ``on_failure`` is a mapping that says otherwise
    failed     critical                               ``on_failure``: fail, skip, quarantine, branch, or
                                                      warn (continue)
    errored    any                                    fail, under every ``on_failure``;
                                                      ``on_error="warn"`` continues, "branch" branches
    no data                                           ``on_no_data``: skip, continue, fail or branch
    =========  =====================================  =====================================================

    Where one of the policies is ``branch``, to continue is a branch too: :attr:`Action.BRANCH`, and
    :func:`branch_of` says which.

    To continue is not to publish: :func:`~airflow_provider_xops.data.publish.publish` looks at the report
    itself.

    :raises ArgumentError: a policy that is none of these (``argument.policy``).
    """
    check_policy(on_failure, on_error=on_error, on_no_data=on_no_data)
    action = _action(report, on_failure, on_error, on_no_data)
    words = {*failure_policy(on_failure).values(), _ACTIONS[on_error], _ACTIONS[on_no_data]}
    return Action.BRANCH if action is Action.CONTINUE and Action.BRANCH in words else action


def branch_of(
    report: ValidationReport,
    on_failure: str | Mapping[str, str] = "branch",
    *,
    on_error: str = "fail",
    on_no_data: str = "skip",
) -> str:
    """Which branch a report takes where :func:`apply_policy` says branch: its outcome's, and that of
    ``passed`` where its policy lets it go on."""
    branches = _action(report, on_failure, on_error, on_no_data) is Action.BRANCH
    return report.outcome.value if branches else Outcome.PASSED.value


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


def _action(
    report: ValidationReport, on_failure: str | Mapping[str, str], on_error: str, on_no_data: str
) -> Action:
    if report.outcome is Outcome.ERRORED:
        return _ACTIONS[on_error]
    if report.outcome is Outcome.NO_DATA:
        return _ACTIONS[on_no_data]
    if report.outcome is Outcome.PASSED:
        return Action.CONTINUE
    policy = failure_policy(on_failure)
    asked = {policy[severity] for severity in _failed_severities(report)}
    return next((action for action in _BY_STRENGTH if action in asked), Action.CONTINUE)


def _failed_severities(report: ValidationReport) -> set[Severity]:
    found = {check.severity for check in report.checks if check.outcome is Outcome.FAILED}
    # A report whose checks were left out (shortened, or of an older writer) still names its worst.
    return found | ({report.severity} if report.severity is not None else set())


def _line(check: CheckSummary) -> str:
    subject = f"{check.check} on {check.column}" if check.column else check.check
    if check.outcome is Outcome.ERRORED:
        return f"{subject} errored ({check.message})"
    if check.unexpected_count is not None:
        share = f", {check.unexpected_percent:.3g} %" if check.unexpected_percent is not None else ""
        return f"{subject} failed ({check.unexpected_count} values{share})"
    return f"{subject} failed" + (f" (observed {check.observed})" if check.observed is not None else "")


def _check_word(name: str, word: Any) -> None:
    if not isinstance(word, str) or word not in POLICIES[name]:
        raise _refused(
            f"{name}={str(word)[:80]!r}", "is not a policy", f"use one of {', '.join(POLICIES[name])}"
        )


def _refused(what: str, why: str, todo: str) -> ArgumentError:
    return ArgumentError(f"{what} {why}", code="argument.policy", todo=todo)
