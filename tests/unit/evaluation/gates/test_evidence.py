"""Gates about smoke tests, reproductions and approvals: the newest record of these very files counts."""

from __future__ import annotations

import dataclasses
import math
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation.gates import (
    Approved,
    Gate,
    LatencyBudget,
    Reproducible,
    SizeBudget,
    SmokeTested,
    ask,
)
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import (
    Approval,
    CheckSummary,
    Outcome,
    Reproduction,
    Severity,
    SmokeTest,
)
from tests.unit.evaluation.gates.cases import CHALLENGER, a_case
from tests.unit.registry.builders import AS_OF, a_model, an_actor

PASSED, FAILED, ERRORED, NO_DATA = Outcome.PASSED, Outcome.FAILED, Outcome.ERRORED, Outcome.NO_DATA


def outcome(lake: Lake, gate: Gate, **changes: Any) -> Outcome:
    (result,) = ask([gate], a_case(lake=lake, **changes))
    return result.outcome


def check(name: str, found: Outcome = PASSED, severity: Severity = Severity.CRITICAL) -> CheckSummary:
    return CheckSummary(check=name, column=None, outcome=found, severity=severity)


def smoke(lake: Lake, *, days_ago: float = 1, **changes: Any) -> SmokeTest:
    values: dict[str, Any] = {
        "recorded_at": AS_OF - timedelta(days=days_ago), "produced_by": an_actor().producer,
        "model": CHALLENGER.ref, "artifact_digest": CHALLENGER.artifact_digest, "environment": "current",
        "server": "mlflow", "outcome": PASSED, "checks": (check("digest"), check("predictions")),
        "figures": {"latency_p95_ms": 20.0, "latency_p95_ms_100_rows": 60.0, "size_mib": 3.0,
                    "run": float(days_ago)},
        "settings_digest": "s", "requests": 20,
    }  # fmt: skip
    made = SmokeTest(**(values | changes))
    assert lake.evidence.put(made)
    return made


def test_a_smoke_test_of_these_files_passes(lake: Lake) -> None:
    assert outcome(lake, SmokeTested()) is NO_DATA
    test = smoke(lake)
    case = a_case(lake=lake)
    (result,) = ask([SmokeTested()], case)
    assert (result.outcome, result.observed) == (PASSED, 2.0)
    assert case.consulted == [test.record_id]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"outcome": FAILED, "message": "predictions differ"}, FAILED),
        ({"outcome": ERRORED}, ERRORED),
        ({"outcome": NO_DATA}, NO_DATA),
        ({"checks": ()}, NO_DATA),
        ({"checks": (check("predictions", NO_DATA),)}, NO_DATA),
        ({"checks": (check("digest"), check("predictions", FAILED))}, FAILED),
        ({"checks": (check("digest"), check("predictions", ERRORED))}, FAILED),
        ({"checks": (check("digest"), check("memory", FAILED, Severity.WARNING))}, PASSED),
        # Other files, and other versions, say nothing of these.
        ({"artifact_digest": "0" * 64}, NO_DATA),
        ({"model": a_model(7).ref}, NO_DATA),
        ({"model": dataclasses.replace(CHALLENGER.ref, created_at_ms=1)}, NO_DATA),
    ],
)
def test_what_a_smoke_test_said(lake: Lake, changes: dict[str, Any], expected: Outcome) -> None:
    smoke(lake, **changes)
    assert outcome(lake, SmokeTested()) is expected


def test_the_newest_smoke_test_counts_for_its_environment(lake: Lake) -> None:
    smoke(lake, days_ago=3, outcome=FAILED)
    smoke(lake, days_ago=2)
    assert outcome(lake, SmokeTested()) is PASSED
    assert outcome(lake, SmokeTested(environment="recorded")) is NO_DATA
    smoke(lake, days_ago=4, environment="recorded", outcome=FAILED)
    assert outcome(lake, SmokeTested(environment="current")) is PASSED
    assert outcome(lake, SmokeTested()) is FAILED


def test_a_smoke_test_may_be_too_old(lake: Lake) -> None:
    smoke(lake, days_ago=8)
    assert outcome(lake, SmokeTested(within_days=8)) is PASSED
    assert outcome(lake, SmokeTested(within_days=7)) is FAILED


@pytest.mark.parametrize(
    ("gate", "figures", "expected"),
    [
        ({"maximum_ms": 20}, None, PASSED),
        ({"maximum_ms": 19.9}, None, FAILED),
        ({"maximum_ms": 60, "rows": 100}, None, PASSED),
        ({"maximum_ms": 59, "rows": 100}, None, FAILED),
        ({"maximum_ms": 99, "percentile": 99}, None, NO_DATA),
        ({"maximum_ms": 99}, {}, NO_DATA),
        ({"maximum_ms": 99}, {"latency_p95_ms": -1.0}, NO_DATA),
    ],
)
def test_latency_budget(
    lake: Lake, gate: dict[str, Any], figures: dict[str, float] | None, expected: Outcome
) -> None:
    assert outcome(lake, LatencyBudget(**gate)) is NO_DATA
    smoke(lake, **({} if figures is None else {"figures": figures}))
    assert outcome(lake, LatencyBudget(**gate)) is expected


def test_a_newer_smoke_test_without_the_figure_is_not_passed_over(lake: Lake) -> None:
    smoke(lake, days_ago=2)
    smoke(lake, days_ago=1, figures={})
    assert outcome(lake, LatencyBudget(maximum_ms=1000)) is NO_DATA


@pytest.mark.parametrize(
    ("size", "expected"), [(2 * 2**20, PASSED), (2 * 2**20 + 1, FAILED), (0, PASSED), (None, PASSED)]
)
def test_size_budget_by_the_model_or_else_its_smoke_test(
    lake: Lake, size: int | None, expected: Outcome
) -> None:
    model = dataclasses.replace(CHALLENGER, size_bytes=size)
    if not size:
        assert outcome(lake, SizeBudget(maximum_mib=2), model=model) is NO_DATA
        smoke(lake, figures={"size_mib": 2.0})
    assert outcome(lake, SizeBudget(maximum_mib=2), model=model) is expected


def reproduced(lake: Lake, *, days_ago: float = 1, **changes: Any) -> None:
    values: dict[str, Any] = {
        "recorded_at": AS_OF - timedelta(days=days_ago), "produced_by": an_actor().producer,
        "model": CHALLENGER.ref, "artifact_digest": CHALLENGER.artifact_digest, "outcome": PASSED,
        "tolerance": 1e-9, "rows": 100, "max_difference": 0.0, "environment": {"run": str(days_ago)},
    }  # fmt: skip
    assert lake.evidence.put(Reproduction(**(values | changes)))


@pytest.mark.parametrize(
    ("gate", "changes", "expected"),
    [
        ({}, {}, PASSED),
        ({}, {"outcome": FAILED, "max_difference": 0.1}, FAILED),
        ({}, {"outcome": ERRORED}, ERRORED),
        ({}, {"max_difference": None}, NO_DATA),
        ({}, {"rows": 0}, NO_DATA),
        ({}, {"max_difference": 0.1}, FAILED),
        ({"tolerance": 0.2}, {"max_difference": 0.1}, PASSED),
        # Whoever asks for a large tolerance passes by it, not by the gate.
        ({}, {"max_difference": 0.1, "tolerance": 1e9}, FAILED),
        ({}, {"labels_changed": 1}, FAILED),
        ({}, {"artifact_digest": "0" * 64}, NO_DATA),
        ({"within_days": 0.5}, {}, FAILED),
        ({"within_days": 1}, {}, PASSED),
    ],
)
def test_reproducible(lake: Lake, gate: dict[str, Any], changes: dict[str, Any], expected: Outcome) -> None:
    assert outcome(lake, Reproducible(**gate)) is NO_DATA
    reproduced(lake, **changes)
    assert outcome(lake, Reproducible(**gate)) is expected


def test_the_newest_reproduction_counts(lake: Lake) -> None:
    reproduced(lake, days_ago=2)
    reproduced(lake, days_ago=1, outcome=FAILED)
    assert outcome(lake, Reproducible()) is FAILED


def said(lake: Lake, person: str, *, hours_ago: float = 1, **changes: Any) -> None:
    producer = dataclasses.replace(an_actor().producer, id=person)
    values: dict[str, Any] = {
        "recorded_at": AS_OF - timedelta(hours=hours_ago), "produced_by": producer, "model": CHALLENGER.ref,
        "person": person, "approved": True, "reason": f"{hours_ago} hours ago",
    }  # fmt: skip
    assert lake.evidence.put(Approval(**(values | changes)))


def test_enough_people_must_approve(lake: Lake) -> None:
    assert outcome(lake, Approved()) is NO_DATA
    said(lake, "ann")
    assert outcome(lake, Approved()) is PASSED
    assert outcome(lake, Approved(people=2)) is NO_DATA
    said(lake, "Ann", hours_ago=0.5)
    assert outcome(lake, Approved(people=2)) is NO_DATA
    said(lake, "bob")
    assert outcome(lake, Approved(people=2)) is PASSED


def test_each_role_must_have_spoken(lake: Lake) -> None:
    said(lake, "ann", role="risk")
    assert outcome(lake, Approved(roles=("risk",))) is PASSED
    assert outcome(lake, Approved(roles=("risk", "owner"))) is NO_DATA
    # One person does not fill two roles: the role of their last word counts.
    said(lake, "ann", hours_ago=0.5, role="owner")
    assert outcome(lake, Approved(roles=("risk", "owner"))) is NO_DATA
    said(lake, "bob", role="Risk")
    assert outcome(lake, Approved(roles=("risk", "owner"))) is PASSED


def test_a_refusal_closes_whoever_else_approves(lake: Lake) -> None:
    said(lake, "ann")
    said(lake, "bob")
    said(lake, "cid", hours_ago=5, approved=False)
    assert outcome(lake, Approved()) is FAILED


def test_whoever_trained_the_model_does_not_approve_it(lake: Lake) -> None:
    trainer = CHALLENGER.produced_by.id
    said(lake, trainer.upper())
    assert outcome(lake, Approved()) is NO_DATA
    assert outcome(lake, Approved(trainer_counts=True)) is PASSED
    said(lake, "ann")
    assert outcome(lake, Approved()) is PASSED


def test_an_approval_that_expired_does_not_count(lake: Lake) -> None:
    said(lake, "ann", hours_ago=5, expires_at=AS_OF)
    assert outcome(lake, Approved()) is NO_DATA
    assert outcome(lake, Approved(), as_of=AS_OF - timedelta(hours=1)) is PASSED


@pytest.mark.parametrize(
    "make",
    [
        lambda: SmokeTested(environment="cloud"),
        lambda: SmokeTested(within_days=0),
        lambda: LatencyBudget(maximum_ms=0),
        lambda: LatencyBudget(maximum_ms=10, percentile=90),
        lambda: SizeBudget(maximum_mib=math.nan),
        lambda: Reproducible(tolerance=-1),
        lambda: Approved(people=0),
        lambda: Approved(people=True),
        lambda: Approved(roles="risk"),
    ],
)
def test_an_unusable_gate_is_refused_when_it_is_made(make: Any) -> None:
    with pytest.raises(ArgumentError, match=r"argument\.gate"):
        make()
