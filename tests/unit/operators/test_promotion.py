"""Promotion, rollback and nomination as tasks: what people and checks said, and what came to nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.operators._base import RegistryOperator
from airflow_provider_xops.operators.model import (
    NominateModelOperator,
    PromoteModelOperator,
    RetireAliasOperator,
    RollbackModelOperator,
)
from airflow_provider_xops.records import (
    ApprovalResult,
    ApprovalStatus,
    DeploymentCheck,
    GateResult,
    ModelVersion,
    Outcome,
)
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.approvals import approve
from airflow_provider_xops.registry.rollback import rollback
from airflow_provider_xops.version_compat import AirflowFailException, AirflowSkipException, Asset
from tests.unit.registry.builders import AS_OF, a_recorded_evaluation, an_actor
from tests.unit.registry.fake_registry import FakeRegistry, recorded_models

MakeContext = Callable[..., dict[str, Any]]
SLOW = GateResult(gate="p99_ms", outcome=Outcome.FAILED, observed=90.0, threshold=50.0, message="90 > 50")


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> FakeRegistry:
    made = FakeRegistry()
    monkeypatch.setattr(FakeRegistry, "version_url", lambda *_: "http://mlflow", raising=False)
    monkeypatch.setattr(RegistryOperator, "registry", lambda _self: made)
    return made


@pytest.fixture
def models(lake: Lake) -> list[ModelVersion]:
    return recorded_models(lake)


def promote(
    lake: Lake,
    make_context: MakeContext,
    model: ModelVersion,
    champion: ModelVersion | None = None,
    **more: Any,
) -> dict[str, Any]:
    evaluation = a_recorded_evaluation(lake, model, champion)
    operator = PromoteModelOperator(
        task_id=f"promote_{model.version}", evaluation=evaluation.record_id, **more
    )
    return operator.execute(make_context(task_id=operator.task_id))


def asked(
    lake: Lake, model: ModelVersion, status: ApprovalStatus, *words: str, **changes: Any
) -> ApprovalResult:
    made = ApprovalResult(
        recorded_at=AS_OF,
        produced_by=an_actor().producer,
        model=model.ref,
        evaluation=a_recorded_evaluation(lake, model).record_id,
        alias="champion",
        request="run_1",
        status=status,
        required=1,
        words=words,
        reason="rejected by ana: no" if status is ApprovalStatus.REJECTED else "",
    )
    made = dataclasses.replace(made, **changes, record_id="")
    lake.evidence.put(made)
    return made


def checked(lake: Lake, model: ModelVersion, **changes: Any) -> DeploymentCheck:
    made = DeploymentCheck(
        recorded_at=AS_OF,
        produced_by=an_actor().producer,
        model=model.ref,
        alias="champion",
        target="xops",
        endpoint="http://one",
        outcome=Outcome.FAILED,
        results=(SLOW,),
        decision=3,
    )
    made = dataclasses.replace(made, **changes, record_id="")
    lake.evidence.put(made)
    return made


def roll_back(make_context: MakeContext, **given: Any) -> dict[str, Any]:
    operator = RollbackModelOperator(task_id="undo", **({"verify": False} | given))
    return operator.execute(make_context(task_id="undo"))


@pytest.fixture
def two(lake: Lake, make_context: MakeContext, models: list[ModelVersion]) -> list[ModelVersion]:
    """Two champions, one after the other; the second was made by entry 3."""
    promote(lake, make_context, models[0])
    assert promote(lake, make_context, models[1], models[0])["sequence"] == 3
    return models


# --- people ---


def test_who_was_asked_and_approved_stands_in_what_the_task_returns(
    lake: Lake, make_context: MakeContext, models: list[ModelVersion]
) -> None:
    word = approve(lake, models[0], reason="fine", person="ana", actor=_service(), as_of=AS_OF)
    approval = asked(lake, models[0], ApprovalStatus.APPROVED, word.record_id)

    returned = promote(lake, make_context, models[0], approval=approval.to_json())

    assert (returned["outcome"], returned["approved_by"], returned["applied"]) == ("promoted", ["ana"], True)


@pytest.mark.parametrize(
    ("status", "outcome"), [(ApprovalStatus.REJECTED, "rejected"), (ApprovalStatus.EXPIRED, "expired")]
)
def test_no_and_silence_are_ordinary_outcomes_that_emit_nothing(
    lake: Lake,
    make_context: MakeContext,
    models: list[ModelVersion],
    registry: FakeRegistry,
    status: ApprovalStatus,
    outcome: str,
) -> None:
    approval = asked(lake, models[0], status)
    evaluation = a_recorded_evaluation(lake, models[0])
    operator = PromoteModelOperator(
        task_id="p", evaluation=evaluation.record_id, approval=approval.record_id, outlets=[Asset("m")]
    )

    returned = operator.execute(make_context())

    assert (returned["outcome"], operator.outlets, registry.pointed) == (outcome, [], {})
    with pytest.raises(AirflowFailException, match=rf"gate\.{outcome}"):
        promote(lake, make_context, models[0], approval=approval.record_id, on_held="fail")


@pytest.mark.parametrize("rendered", [None, "", "None"])
def test_an_approval_that_came_to_nothing_is_not_an_approval(
    lake: Lake, make_context: MakeContext, models: list[ModelVersion], registry: FakeRegistry, rendered: Any
) -> None:
    """The task that concludes was skipped: its template renders to nothing."""
    evaluation = a_recorded_evaluation(lake, models[0])
    operator = PromoteModelOperator(task_id="p", evaluation=evaluation.record_id, approval="{{ nothing }}")
    operator.approval = rendered

    with pytest.raises(AirflowFailException, match=r"argument\.empty.*approval"):
        operator.execute(make_context())
    assert (registry.pointed, ledger.entries(lake)) == ({}, [])


# --- columns and aliases ---


def test_other_columns_are_held_and_promoted_where_the_task_allows_them(
    lake: Lake, make_context: MakeContext, registry: FakeRegistry
) -> None:
    first, _ = recorded_models(lake, 2)
    wider = dataclasses.replace(
        first, version=2, created_at_ms=1002, features=("a", "b", "c"), artifact_digest="e" * 64, record_id=""
    )
    lake.evidence.put(wider)
    promote(lake, make_context, first)

    with pytest.raises(AirflowSkipException, match=r"held .other inputs than v1: it needs c"):
        promote(lake, make_context, wider, first, on_held="skip")
    returned = promote(lake, make_context, wider, first, on_held="skip", allow_new_inputs=True)

    assert returned["reason"].startswith("all 1 gates passed; allowed: other inputs than v1: it needs c")
    assert registry.pointed == {"champion": 2}


def test_an_evaluation_for_another_alias_fails_the_task_whatever_it_does_when_held(
    lake: Lake, make_context: MakeContext, models: list[ModelVersion]
) -> None:
    evaluation = dataclasses.replace(
        a_recorded_evaluation(lake, models[0]), alias="champion-eu", record_id=""
    )
    lake.evidence.put(evaluation)
    operator = PromoteModelOperator(task_id="p", evaluation=evaluation.record_id, on_held="succeed")

    with pytest.raises(AirflowFailException, match=r"argument\.evaluation.*evaluated for champion-eu"):
        operator.execute(make_context())
    assert ledger.entries(lake) == []


# --- checks ---


def test_a_failed_check_undoes_the_decision_that_it_is_about(
    lake: Lake, make_context: MakeContext, two: list[ModelVersion], registry: FakeRegistry
) -> None:
    check = checked(lake, two[1])

    first = roll_back(make_context, check=check.to_json())
    again = roll_back(make_context, check=check.record_id)

    assert (first["outcome"], first["to_version"], first["reused"]) == ("rolled_back", 1, False)
    assert first["reason"].startswith("check of late v2 failed: p99_ms (90 > 50)")
    assert check.record_id in first["evidence"]
    # A retry is not taken for somebody who has decided since.
    assert (again["record_id"], again["reused"]) == (first["record_id"], True)
    assert registry.pointed == {"champion": 1}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"outcome": Outcome.PASSED}, "the check of late v2 passed"),
        ({"outcome": Outcome.NO_DATA}, "the check of late v2 no data"),
        ({"outcome": Outcome.ERRORED}, "the check of late v2 errored"),
        ({"decision": None}, "does not say which decision"),
        ({"decision": 1}, "about entry 1, and it rests on entry 3"),
    ],
)
def test_anything_but_a_failed_check_of_the_standing_decision_skips_and_says_why(
    lake: Lake,
    make_context: MakeContext,
    two: list[ModelVersion],
    registry: FakeRegistry,
    changes: dict[str, Any],
    why: str,
) -> None:
    with pytest.raises(AirflowSkipException, match=why):
        roll_back(make_context, check=checked(lake, two[1], **changes).to_json())

    assert registry.pointed == {"champion": 2}


def test_what_was_promoted_after_the_check_stays(
    lake: Lake, make_context: MakeContext, two: list[ModelVersion], registry: FakeRegistry
) -> None:
    check = checked(lake, two[1])
    promote(lake, make_context, two[2], two[1])

    with pytest.raises(AirflowSkipException, match="it rests on entry 5"):
        roll_back(make_context, check=check.to_json())
    assert registry.pointed == {"champion": 3}


def test_a_retry_does_not_undo_what_somebody_else_has_decided_since_the_run_began(
    lake: Lake, make_context: MakeContext, two: list[ModelVersion], registry: FakeRegistry
) -> None:
    """The first attempt failed before it decided, and somebody rolled back by hand."""
    operator = RollbackModelOperator(task_id="undo", model_name="late", reason="r", verify=False)
    began = SimpleNamespace(start_date=ledger.entries(lake, "late")[-1].recorded_at)
    rollback(
        lake, registry, model_name="late", reason="by hand", verify=False, actor=an_actor("hand"),
        as_of=began.start_date + timedelta(seconds=1),
    )  # fmt: skip

    retried = make_context(task_id="undo", run_id="other", try_number=2) | {"dag_run": began}
    with pytest.raises(AirflowFailException, match=r"registry\.not_standing.*it rests on entry 5"):
        operator.execute(retried)
    assert registry.pointed == {"champion": 1}


def test_a_retry_rolls_back_what_stood_when_the_run_began(
    lake: Lake, make_context: MakeContext, two: list[ModelVersion], registry: FakeRegistry
) -> None:
    operator = RollbackModelOperator(task_id="undo", model_name="late", reason="r", verify=False)
    began = SimpleNamespace(start_date=ledger.entries(lake, "late")[-1].recorded_at)
    retried = make_context(task_id="undo", run_id="other", try_number=2) | {"dag_run": began}

    assert operator.execute(retried)["to_version"] == 1
    assert operator.execute(retried)["reused"]


def test_a_check_is_read_as_it_was_recorded(
    lake: Lake, make_context: MakeContext, two: list[ModelVersion], registry: FakeRegistry
) -> None:
    honest = checked(lake, two[1], outcome=Outcome.PASSED)
    forged = dataclasses.replace(honest, outcome=Outcome.FAILED)
    assert forged.record_id == honest.record_id

    with pytest.raises(AirflowSkipException, match="passed"):
        roll_back(make_context, check=forged.to_json())
    assert registry.pointed == {"champion": 2}


@pytest.mark.parametrize("rendered", [None, "", "None"])
def test_a_check_that_came_to_nothing_rolls_nothing_back(
    make_context: MakeContext, two: list[ModelVersion], registry: FakeRegistry, rendered: Any
) -> None:
    operator = RollbackModelOperator(
        task_id="undo", model_name="late", reason="r", check="{{ nothing }}", verify=False
    )
    operator.check = rendered

    with pytest.raises(AirflowFailException, match=r"argument\.empty.*check"):
        operator.execute(make_context(task_id="undo"))
    assert registry.pointed == {"champion": 2}


@pytest.mark.parametrize("given", [{"model_name": "other"}, {"alias": "champion-eu"}])
def test_a_check_of_another_model_or_alias_is_refused(
    lake: Lake, make_context: MakeContext, two: list[ModelVersion], given: dict[str, Any]
) -> None:
    with pytest.raises(AirflowFailException, match=r"argument\.check"):
        roll_back(make_context, check=checked(lake, two[1]).to_json(), **given)


@pytest.mark.parametrize(
    ("given", "missing"), [({"reason": "r"}, "model_name"), ({"model_name": "late"}, "reason")]
)
def test_without_a_check_model_and_reason_are_needed(
    make_context: MakeContext, given: dict[str, Any], missing: str
) -> None:
    with pytest.raises(AirflowFailException, match=rf"argument\.empty\] {missing} of task undo"):
        roll_back(make_context, **given)


# --- nominees ---


def test_a_nominee_and_the_end_of_its_alias(
    lake: Lake, make_context: MakeContext, models: list[ModelVersion], registry: FakeRegistry
) -> None:
    evaluation = a_recorded_evaluation(lake, models[1])
    for given in (models[0].record_id, evaluation.to_json()):
        operator = NominateModelOperator(
            task_id="n", model=given, alias="shadow", reason="compare", valid_for=timedelta(days=7)
        )
        returned = operator.execute(make_context(task_id="n"))
        assert (returned["outcome"], returned["applied"]) == ("nominated", True)
        assert returned["expires_at"] is not None
    assert registry.pointed == {"shadow": 2}

    end = RetireAliasOperator(task_id="e", model_name="late", alias="shadow", reason="compared")
    returned = end.execute(make_context(task_id="e"))

    assert (returned["outcome"], registry.pointed) == ("retired", {})
    assert end.execute(make_context(task_id="e"))["reused"]


def test_a_champions_alias_is_not_nominated_for(
    make_context: MakeContext, models: list[ModelVersion]
) -> None:
    operator = NominateModelOperator(task_id="n", model=models[0].record_id, alias="champion", reason="r")

    with pytest.raises(AirflowFailException, match=r"registry\.gated_alias"):
        operator.execute(make_context())


def _service() -> Any:
    from airflow_provider_xops.records import Actor, ActorKind, Producer

    return Actor(producer=Producer(kind=ActorKind.SERVICE, id="airflow"), idempotency_key="ask", fence=1)
