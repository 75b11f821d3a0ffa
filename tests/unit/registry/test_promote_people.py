"""What people said, asked or not, on the way into the ledger."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import (
    Actor,
    ActorKind,
    Approval,
    ApprovalResult,
    ApprovalStatus,
    Evaluation,
    GateResult,
    ModelVersion,
    Outcome,
    Producer,
)
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.approval_results import conclude, record_answer
from airflow_provider_xops.registry.approvals import approve
from airflow_provider_xops.registry.promote import PromotionResult, promote
from tests.unit.registry.builders import AS_OF, a_recorded_evaluation, an_actor
from tests.unit.registry.fake_registry import FakeRegistry, recorded_models

SERVICE = Actor(producer=Producer(kind=ActorKind.SERVICE, id="airflow"), idempotency_key="ask", fence=1)
LATER = AS_OF + timedelta(hours=2)


@pytest.fixture
def registry() -> Any:
    return FakeRegistry()


@pytest.fixture
def model(lake: Lake) -> ModelVersion:
    return recorded_models(lake, 1)[0]


@pytest.fixture
def evaluation(lake: Lake, model: ModelVersion) -> Evaluation:
    return a_recorded_evaluation(lake, model)


def answer(lake: Lake, model: ModelVersion, person: str, approved: bool = True, **changes: Any) -> Approval:
    given = {"reason": "looked at it", "actor": SERVICE, "said_at": AS_OF} | changes
    return record_answer(
        lake, model, person=person, approved=approved, **({"as_of": given["said_at"]} | given)
    )


def result_of(
    lake: Lake, model: ModelVersion, evaluation: Evaluation, *words: Approval, **changes: Any
) -> ApprovalResult:
    given = {"people": 2, "alias": "champion", "request": "run 1", "as_of": AS_OF}
    return conclude(
        lake,
        model,
        evaluation=evaluation.record_id,
        words=[word.record_id for word in words],
        actor=SERVICE,
        **(given | changes),
    )


def decided(
    lake: Lake, registry: Any, model: ModelVersion, evaluation: Evaluation | None,
    approval: ApprovalResult | None = None, *, key: str = "promote", **changes: Any,
) -> PromotionResult:  # fmt: skip
    given = {"expected": None, "as_of": LATER, "actor": an_actor(key)}
    return promote(
        lake, registry, model=model, evaluation=evaluation, approval=approval, **(given | changes)
    )  # fmt: skip


def test_two_people_who_were_asked_stand_in_the_ledger(
    lake: Lake, registry: Any, model: ModelVersion, evaluation: Evaluation
) -> None:
    words = [answer(lake, model, person) for person in ("bob", "ana")]
    approval = result_of(lake, model, evaluation, *words)
    assert approval.status is ApprovalStatus.APPROVED

    result = decided(lake, registry, model, evaluation, approval)

    assert (str(result.decision.outcome), result.applied) == ("promoted", True)
    assert result.decision.approved_by == ("ana", "bob")
    assert result.decision.evidence == (model.record_id, evaluation.record_id, approval.record_id)
    (read,) = (entry for entry in ledger.entries(lake, "late") if entry.decides is None)
    assert read.approved_by == ("ana", "bob")
    assert ledger.verify_chain(lake, "late") == []


@pytest.mark.parametrize(
    "spelling", ["ANA B", " ana  b ", "an\u200ba b", "\uff41na b", "ana\u00a0b", "a\u0301na b"]
)
def test_one_person_under_two_spellings_is_one_person(
    lake: Lake, registry: Any, model: ModelVersion, evaluation: Evaluation, spelling: str
) -> None:
    first = "\u00e1na b" if "\u0301" in spelling else "ana b"
    approval = result_of(
        lake, model, evaluation, answer(lake, model, first), answer(lake, model, spelling, reason="again")
    )

    decision = decided(lake, registry, model, evaluation, approval).decision

    assert (approval.status, decision.outcome) == (ApprovalStatus.EXPIRED, "expired")
    assert len(decision.approved_by) == 1


def test_who_trained_it_does_not_count_under_another_spelling(lake: Lake) -> None:
    trainer = Producer(kind=ActorKind.USER, id="jos\u00e9")
    model = recorded_models(lake, 1, produced_by=trainer)[0]
    evaluation = a_recorded_evaluation(lake, model)

    approval = result_of(lake, model, evaluation, answer(lake, model, "JOSE\u0301"), people=1)

    assert approval.status is ApprovalStatus.EXPIRED


def test_who_approved_without_being_asked_stands_there_too(
    lake: Lake, registry: Any, model: ModelVersion, evaluation: Evaluation
) -> None:
    approve(lake, model, reason="fine", actor=an_actor(), as_of=AS_OF)

    assert decided(lake, registry, model, evaluation).decision.approved_by == ("tester",)


def test_a_no_rejects_whatever_the_gates_say(
    lake: Lake, registry: Any, model: ModelVersion, evaluation: Evaluation
) -> None:
    words = [answer(lake, model, "bob"), answer(lake, model, "ana", approved=False, reason="label is wrong")]
    approval = result_of(lake, model, evaluation, *words)

    first, again = (decided(lake, registry, model, evaluation, approval) for _ in range(2))

    assert (str(first.decision.outcome), first.decision.reason) == (
        "rejected",
        "rejected by ana: label is wrong",
    )
    assert first.decision.approved_by == ("bob",)
    assert (again.decision, again.reused) == (first.decision, True)
    assert registry.pointed == {}


def test_silence_expires(lake: Lake, registry: Any, model: ModelVersion, evaluation: Evaluation) -> None:
    approval = result_of(lake, model, evaluation, answer(lake, model, "ana"))
    assert approval.status is ApprovalStatus.EXPIRED

    decision = decided(lake, registry, model, evaluation, approval).decision

    assert (str(decision.outcome), decision.reason) == (
        "expired",
        "approval expired: approved by 1 of 2 (ana)",
    )
    assert registry.pointed == {}


def test_an_approval_that_was_taken_back_holds_until_it_is_given_again(
    lake: Lake, registry: Any, model: ModelVersion, evaluation: Evaluation
) -> None:
    words = [
        answer(lake, model, "bob"),
        answer(lake, model, "ana", expires_at=AS_OF + timedelta(hours=1)),
    ]
    approval = result_of(lake, model, evaluation, *words)
    assert approval.status is ApprovalStatus.APPROVED

    held = decided(lake, registry, model, evaluation, approval)
    assert decided(lake, registry, model, evaluation, approval).reused
    answer(lake, model, "ana", reason="still fine", said_at=AS_OF + timedelta(minutes=90))
    done = decided(lake, registry, model, evaluation, approval)

    assert str(held.decision.outcome) == "held"
    assert held.decision.reason == "approval does not stand: 1 of 2 people who were asked still approve"
    assert (str(done.decision.outcome), done.decision.approved_by) == ("promoted", ("ana", "bob"))


def test_a_refusal_after_the_result_holds(
    lake: Lake, registry: Any, model: ModelVersion, evaluation: Evaluation
) -> None:
    words = [answer(lake, model, person) for person in ("bob", "ana")]
    approval = result_of(lake, model, evaluation, *words)
    answer(lake, model, "cid", approved=False, reason="saw it on Monday", said_at=LATER)

    decision = decided(lake, registry, model, evaluation, approval).decision

    assert (str(decision.outcome), decision.reason) == ("held", "refused: by cid (saw it on Monday)")


def test_gates_count_although_everybody_approves(lake: Lake, registry: Any, model: ModelVersion) -> None:
    failed = GateResult(gate="auc", outcome=Outcome.FAILED, observed=0.5, threshold=0.8, message="too low")
    evaluation = a_recorded_evaluation(lake, model, gates=(failed,))
    words = [answer(lake, model, person) for person in ("bob", "ana")]

    decision = decided(lake, registry, model, evaluation, result_of(lake, model, evaluation, *words)).decision

    assert (str(decision.outcome), decision.reason) == ("rejected", "gate: auc failed (too low)")
    assert decision.approved_by == ("ana", "bob")


@pytest.mark.parametrize("trainer_counts", [True, False])
def test_the_word_of_who_trained_it_counts_only_where_it_was_needed(
    lake: Lake, registry: Any, model: ModelVersion, evaluation: Evaluation, trainer_counts: bool
) -> None:
    """The trainer (``tester``) and one more answered; then the other one's word expires."""
    words = [
        answer(lake, model, "tester"),
        answer(lake, model, "ana", expires_at=AS_OF + timedelta(hours=1)),
    ]
    approval = result_of(lake, model, evaluation, *words, people=1, trainer_counts=trainer_counts)
    assert approval.status is ApprovalStatus.APPROVED

    decision = decided(lake, registry, model, evaluation, approval).decision

    # The record does not say whether the trainer was allowed; ana alone was enough, so it is not assumed.
    assert str(decision.outcome) == "held"


def test_a_trainer_whose_word_was_needed_is_counted(
    lake: Lake, registry: Any, model: ModelVersion, evaluation: Evaluation
) -> None:
    words = [answer(lake, model, person) for person in ("tester", "ana")]
    approval = result_of(lake, model, evaluation, *words, trainer_counts=True)

    assert str(decided(lake, registry, model, evaluation, approval).decision.outcome) == "promoted"


def test_an_approval_of_something_else_is_refused(
    lake: Lake, registry: Any, model: ModelVersion, evaluation: Evaluation
) -> None:
    words = [answer(lake, model, person) for person in ("bob", "ana")]
    approval = result_of(lake, model, evaluation, *words)
    other = dataclasses.replace(evaluation, record_id="", gates_digest="other gates")
    lake.evidence.put(other)

    def refused(given: ApprovalResult, of: Evaluation | None, alias: str = "champion") -> str:
        with pytest.raises(ArgumentError) as caught:
            decided(lake, registry, model, of, given, alias=alias)
        return caught.value.code

    assert refused(approval, other) == "argument.approval"
    assert refused(approval, None) == "argument.approval"
    assert refused(approval, evaluation, "champion-eu") == "argument.approval"
    assert refused(dataclasses.replace(approval, record_id="", request="made up"), evaluation) == (
        "argument.approval"
    )
    assert ledger.entries(lake) == []


def test_a_result_that_was_changed_on_the_way_is_read_as_it_was_recorded(
    lake: Lake, registry: Any, model: ModelVersion, evaluation: Evaluation
) -> None:
    honest = result_of(lake, model, evaluation, answer(lake, model, "ana", approved=False))
    forged = dataclasses.replace(honest, status=ApprovalStatus.APPROVED, required=0, words=())
    assert forged.record_id == honest.record_id

    assert str(decided(lake, registry, model, evaluation, forged).decision.outcome) == "rejected"


def test_people_whose_clock_is_ahead_are_heard(
    lake: Lake, registry: Any, model: ModelVersion, evaluation: Evaluation
) -> None:
    ahead = LATER + timedelta(seconds=3)
    words = [answer(lake, model, person, said_at=ahead) for person in ("bob", "ana")]
    approval = result_of(lake, model, evaluation, *words)

    assert decided(lake, registry, model, evaluation, approval).applied


def test_a_killed_promotion_is_finished_although_people_changed_their_minds(
    lake: Lake, registry: Any, model: ModelVersion, evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [answer(lake, model, person) for person in ("bob", "ana")]
    approval = result_of(lake, model, evaluation, *words)
    with monkeypatch.context() as killed:
        killed.setattr("airflow_provider_xops.registry.promote.apply_decision", lambda *_, **__: False)
        decided(lake, registry, model, evaluation, approval)
    answer(lake, model, "ana", approved=False, said_at=LATER)

    result = decided(lake, registry, model, evaluation, approval)

    assert (str(result.decision.outcome), result.applied, result.reused) == ("promoted", True, True)
