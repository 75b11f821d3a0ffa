"""Gates that an evaluation has deferred: no way into the ledger leads around them, with a real MLflow."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_xops.errors import ArgumentError, UnavailableError
from airflow_provider_xops.evaluation.gates import Approved, Policy, ask_deferred, check_gates
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.lineage import render, trace
from airflow_provider_xops.records import (
    Approval,
    Evaluation,
    GateReport,
    GateResult,
    ModelVersion,
    Outcome,
    PromotionOutcome,
)
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry import promote as promotion
from airflow_provider_xops.registry.approvals import approve
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.promote import PromotionResult, promote
from tests.integration.registry_steps import bare_version, fresh_name
from tests.servers import MlflowServer
from tests.unit.registry.builders import AS_OF, a_recorded_evaluation, an_actor, an_evaluation

pytestmark = pytest.mark.server

HELD, PROMOTED = PromotionOutcome.HELD, PromotionOutcome.PROMOTED
GATE = Approved(people=2, roles=("risk",))
LATER = AS_OF + timedelta(hours=1)


@pytest.fixture
def client(mlflow_server: MlflowServer) -> RegistryClient:
    return RegistryClient(mlflow_server.settings())


@pytest.fixture
def model(client: RegistryClient, lake: Lake) -> ModelVersion:
    return bare_version(client, lake, fresh_name())


@pytest.fixture
def evaluation(lake: Lake, model: ModelVersion) -> Evaluation:
    """All figures passed; two people's approval was left for promotion."""
    made = dataclasses.replace(an_evaluation(model), deferred_gates=(GATE.to_json(),))
    lake.evidence.put(made)
    return made


def people_approve(lake: Lake, model: ModelVersion) -> None:
    for name, role in (("ann", "risk"), ("bob", "model_owner")):
        say(lake, model, name, role=role)


def say(lake: Lake, model: ModelVersion, name: str, **changes: Any) -> Approval:
    actor = dataclasses.replace(an_actor(), producer=dataclasses.replace(an_actor().producer, id=name))
    return approve(lake, model, **({"reason": "reviewed", "actor": actor, "as_of": AS_OF} | changes))


def decided(
    lake: Lake, client: RegistryClient, model: ModelVersion, evaluation: Evaluation | None,
    report: GateReport | None = None, *, key: str = "promote",
) -> PromotionResult:  # fmt: skip
    return promote(
        lake, client, model=model, expected=None, evaluation=evaluation, gate_report=report,
        actor=an_actor(key), as_of=LATER,
    )  # fmt: skip


def asked(lake: Lake, model: ModelVersion, evaluation: Evaluation) -> GateReport | None:
    return ask_deferred(lake, model, evaluation, actor=an_actor("ask"), as_of=LATER)


def nobody_is_champion(lake: Lake, client: RegistryClient, model: ModelVersion) -> bool:
    entries = ledger.entries(lake, model.name)
    return client.aliases(model.name) == {} and not [e for e in entries if e.outcome is PROMOTED]


def test_a_deferred_gate_holds_until_it_is_answered_and_the_same_work_then_promotes(
    client: RegistryClient, lake: Lake, model: ModelVersion, evaluation: Evaluation
) -> None:
    unasked = decided(lake, client, model, evaluation)
    unapproved = decided(lake, client, model, evaluation, asked(lake, model, evaluation))
    assert (unasked.decision.outcome, unapproved.decision.outcome) == (HELD, HELD)
    assert "approved was deferred and not asked" in unasked.decision.reason
    assert "nobody approved as risk" in unapproved.decision.reason
    assert nobody_is_champion(lake, client, model)

    people_approve(lake, model)
    report = asked(lake, model, evaluation)
    assert report is not None
    assert report.outcome is Outcome.PASSED
    done = decided(lake, client, model, evaluation, report)

    assert (done.decision.outcome, done.applied, done.reused) == (PROMOTED, True, False)
    assert done.decision.evidence == (model.record_id, evaluation.record_id, report.record_id)
    assert client.aliases(model.name) == {"champion": model.version}
    assert ledger.verify_chain(lake, model.name) == []
    told = render(trace(lake, f"{model.name}/{model.version}", decisions=ledger.entries(lake)), full=True)
    assert "gates of deferred" in told
    assert "passed: approved (approved by" in told


def test_an_evaluation_stripped_of_its_deferred_gates_is_judged_as_it_was_recorded(
    client: RegistryClient, lake: Lake, model: ModelVersion, evaluation: Evaluation
) -> None:
    failed = GateResult(gate="auc", outcome=Outcome.FAILED, observed=0.5, threshold=0.8, message="too low")
    honest = dataclasses.replace(evaluation, record_id="", gates_digest="strict", gates=(failed,))
    lake.evidence.put(honest)
    # The same identity, and everything passed: what a task could hand over by XCom.
    forged = dataclasses.replace(honest, gates=evaluation.gates, deferred_gates=())
    assert forged.record_id == honest.record_id

    result = decided(lake, client, model, forged)

    assert result.decision.outcome is PromotionOutcome.REJECTED
    assert nobody_is_champion(lake, client, model)


def test_what_was_made_up_on_the_way_promotes_nothing(
    client: RegistryClient, lake: Lake, model: ModelVersion, evaluation: Evaluation
) -> None:
    # Of another identity than anything in the evidence, and everything passed.
    made_up = dataclasses.replace(evaluation, record_id="", gates_digest="made up", deferred_gates=())
    with pytest.raises(ArgumentError, match=r"argument\.evaluation.*changed after it was written"):
        decided(lake, client, model, made_up)

    report = asked(lake, model, evaluation)
    assert report is not None
    passed = tuple(dataclasses.replace(each, outcome=Outcome.PASSED, observed=2.0) for each in report.results)
    forged = dataclasses.replace(report, record_id="", outcome=Outcome.PASSED, results=passed)
    with pytest.raises(ArgumentError, match=r"argument\.gate_report.*changed after it was written"):
        decided(lake, client, model, evaluation, forged)
    assert list(lake.evidence.all(GateReport.kind)) == [report]
    assert nobody_is_champion(lake, client, model)


def test_an_evaluation_does_not_count_for_files_that_were_adopted_as_the_same_version_later(
    client: RegistryClient, lake: Lake, model: ModelVersion
) -> None:
    evaluation = a_recorded_evaluation(lake, model)
    changed = dataclasses.replace(
        model, record_id="", artifact_digest="f" * 64, origin="adopted", recorded_at=LATER
    )
    lake.evidence.put(changed)
    assert changed.ref == evaluation.model

    result = decided(lake, client, changed, evaluation)

    assert result.decision.outcome is HELD
    assert result.decision.reason.startswith("other files")
    assert nobody_is_champion(lake, client, model)


def test_a_refusal_holds_a_model_whose_gates_all_passed_until_it_is_taken_back(
    client: RegistryClient, lake: Lake, model: ModelVersion
) -> None:
    passed = a_recorded_evaluation(lake, model)
    say(lake, model, "cid", approved=False, reason="the label is wrong since March")
    refused = decided(lake, client, model, passed)
    assert decided(lake, client, model, passed).reused
    assert refused.decision.outcome is HELD
    assert refused.decision.reason == "refused: by cid (the label is wrong since March)"
    assert nobody_is_champion(lake, client, model)

    say(lake, model, "cid", reason="the label is mended", as_of=AS_OF + timedelta(minutes=1))
    # The task that was held is cleared, and decides anew.
    assert decided(lake, client, model, passed).decision.outcome is PROMOTED


def test_a_refusal_after_the_gates_were_asked_still_holds(
    client: RegistryClient, lake: Lake, model: ModelVersion, evaluation: Evaluation
) -> None:
    people_approve(lake, model)
    report = asked(lake, model, evaluation)
    say(lake, model, "cid", approved=False, as_of=LATER)

    result = decided(lake, client, model, evaluation, report)

    assert result.decision.outcome is HELD
    assert result.decision.reason.startswith("refused: by cid")


def test_a_report_of_another_evaluation_or_model_is_no_report(
    client: RegistryClient, lake: Lake, model: ModelVersion, evaluation: Evaluation
) -> None:
    other_model = bare_version(client, lake, model.name)
    people_approve(lake, model)
    people_approve(lake, other_model)
    of_other_gates = dataclasses.replace(evaluation, record_id="", gates_digest="other gates")
    of_other_model = dataclasses.replace(an_evaluation(other_model), deferred_gates=evaluation.deferred_gates)
    for each in (of_other_gates, of_other_model):
        lake.evidence.put(each)
    reports = [
        asked(lake, model, of_other_gates),
        asked(lake, other_model, of_other_model),
        check_gates(lake, model, None, Policy(name="p", gates=(GATE,)), actor=an_actor("ask"), as_of=LATER),
    ]
    for report in reports:
        assert report is not None
        assert report.outcome is Outcome.PASSED
        with pytest.raises(ArgumentError, match=r"argument\.gate_report"):
            decided(lake, client, model, evaluation, report)
    with pytest.raises(ArgumentError, match=r"argument\.gate_report"):
        decided(lake, client, model, None, reports[2])
    assert nobody_is_champion(lake, client, model)


def test_a_report_on_a_weaker_policy_does_not_answer_the_deferred_gates(
    client: RegistryClient, lake: Lake, model: ModelVersion, evaluation: Evaluation
) -> None:
    say(lake, model, "ann")
    weaker = Policy(name="weaker", gates=(Approved(people=1),))
    report = check_gates(lake, model, evaluation, weaker, actor=an_actor("ask"), as_of=LATER)
    assert report.outcome is Outcome.PASSED

    with pytest.raises(ArgumentError, match="does not ask 1 gates"):
        ask_deferred(lake, model, evaluation, report, actor=an_actor("ask"), as_of=LATER)
    assert decided(lake, client, model, evaluation, report).decision.outcome is HELD
    assert nobody_is_champion(lake, client, model)


def test_a_killed_promotion_is_finished_although_the_gates_answer_otherwise_by_then(
    client: RegistryClient, lake: Lake, model: ModelVersion, evaluation: Evaluation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    people_approve(lake, model)
    report = asked(lake, model, evaluation)

    def killed(*_: Any, **__: Any) -> bool:
        raise UnavailableError("the attempt dies after its decision")

    with monkeypatch.context() as patch:
        patch.setattr(promotion, "apply_decision", killed)
        with pytest.raises(UnavailableError):
            decided(lake, client, model, evaluation, report)
    assert client.aliases(model.name) == {}

    say(lake, model, "dan", role="risk")
    say(lake, model, "cid", approved=False, as_of=LATER)
    another = asked(lake, model, evaluation)
    assert another != report
    result = decided(lake, client, model, evaluation, another)

    # What was decided is decided: the retry finishes it. Afterwards `xops rollback` is the way back.
    assert (result.decision.outcome, result.applied, result.reused) == (PROMOTED, True, True)
    assert [str(e.outcome) for e in ledger.entries(lake, model.name)] == ["promoted", "applied"]
    assert client.aliases(model.name) == {"champion": model.version}
