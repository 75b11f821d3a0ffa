"""What the deployment operators refuse before they contact anything, and how a decision that says no ends."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.operators._deciding import meant_by
from airflow_provider_xops.operators.model import CheckDeploymentOperator, DeployModelOperator
from airflow_provider_xops.records import (
    Actor,
    Evaluation,
    PromotionDecision,
    PromotionOutcome,
)
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.ledger import Draft
from airflow_provider_xops.registry.promote import promote
from airflow_provider_xops.version_compat import AirflowFailException, AirflowSkipException
from tests.unit.registry.builders import AS_OF, a_model, a_recorded_evaluation, an_actor
from tests.unit.registry.fake_registry import FakeRegistry, recorded_models

MakeContext = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens there: what is refused is refused before anybody is asked."""
    for name, fields in {
        "MLFLOW": {"conn_type": "xops_mlflow", "host": "http://127.0.0.1:1"},
        "SERVING": {"conn_type": "xops_serving", "host": "http://127.0.0.1:1"},
    }.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_XOPS_{name}_DEFAULT", json.dumps(fields))


@pytest.fixture
def given(lake: Lake, actor: Actor, as_of: datetime) -> dict[str, Any]:
    """A model, its evaluation, and a decision that holds it."""
    model = a_model(2)
    lake.evidence.put(model)
    evaluation = a_recorded_evaluation(lake, model)

    def hold(now: Any) -> Draft:
        return Draft(
            outcome=PromotionOutcome.HELD, reason="no gates: nothing says so", to_version=2,
            to_created_at_ms=model.created_at_ms, artifact_digest=model.artifact_digest,
        )  # fmt: skip

    held, _ = ledger.append(lake, model.name, "champion", hold, actor=actor, as_of=as_of)
    return {"model": model.to_json(), "evaluation": evaluation.to_json(), "decision": held.to_json()}


def test_an_evaluation_for_another_alias_is_refused_before_anything_is_loaded(
    lake: Lake, given: dict[str, Any], make_context: MakeContext
) -> None:
    evaluation = dataclasses.replace(
        Evaluation.from_json(given["evaluation"]), alias="champion-eu", record_id=""
    )
    lake.evidence.put(evaluation)
    task = DeployModelOperator(task_id="deploy", evaluation=evaluation.record_id)

    with pytest.raises(AirflowFailException, match=r"argument\.evaluation.*evaluated for champion-eu"):
        task.execute(make_context(task_id="deploy"))


@pytest.mark.parametrize("allowed", [False, True])
def test_what_the_task_allows_the_promotion_on_the_way_allows_too(
    lake: Lake, make_context: MakeContext, allowed: bool
) -> None:
    registry = FakeRegistry()
    (champion,) = recorded_models(lake, 1, features=("a",))
    model = dataclasses.replace(
        champion, version=2, created_at_ms=1002, features=("a", "b"), artifact_digest="e" * 64, record_id=""
    )
    lake.evidence.put(model)
    promote(
        lake, registry, model=champion, alias="champion-eu", expected=None,
        evaluation=a_recorded_evaluation(lake, champion), actor=an_actor("first"), as_of=AS_OF,
    )  # fmt: skip
    evaluation = a_recorded_evaluation(lake, model, champion)
    task = DeployModelOperator(
        task_id="deploy", evaluation=evaluation.record_id, alias="champion-eu", allow_new_inputs=allowed
    )

    meant = meant_by(task, make_context(task_id="deploy"), lake, registry)
    assert meant.decide is not None
    decision = meant.decide()

    assert decision.outcome == ("promoted" if allowed else "held")
    assert "other inputs than v1: it needs b" in decision.reason


@pytest.mark.parametrize(
    ("names", "more", "code"),
    [
        ((), {}, "argument.basis"),
        (("model", "evaluation"), {}, "argument.basis"),
        (("model",), {"approval": "0" * 32}, "argument.basis"),
        (("decision",), {"gate_report": "0" * 32}, "argument.basis"),
        (("decision",), {"alias": "challenger"}, "argument.alias"),
        (("evaluation",), {"alias": ""}, "argument.empty"),
        (("evaluation",), {"on_failure": "panic"}, "argument.on_failure"),
        (("evaluation",), {"on_held": "panic"}, "argument.on_held"),
        (("evaluation",), {"health": '{"max_p99": 3}'}, "argument.health"),
        (("evaluation",), {"steps": [0.5]}, "argument.steps"),
        (("evaluation",), {"steps": "[0.5, 'half']"}, "argument.number"),
        (("evaluation",), {"timeout_seconds": 0}, "argument.number"),
        (("model",), {"steps": [1.0]}, "argument.steps"),
        (("evaluation",), {"role": "shadow"}, "argument.steps"),
        (("evaluation",), {"serving_conn_id": "nowhere"}, "argument.connection"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    given: dict[str, Any], names: tuple[str, ...], more: dict[str, Any], code: str, make_context: MakeContext
) -> None:
    task = DeployModelOperator(task_id="deploy", **{name: given[name] for name in names}, **more)

    with pytest.raises(AirflowFailException) as raised:
        task.execute(make_context(task_id="deploy"))

    assert f"[{code}]" in str(raised.value)


def test_a_decision_that_says_no_skips_fails_or_is_returned(
    given: dict[str, Any], make_context: MakeContext
) -> None:
    def execute(**more: Any) -> Any:
        task = DeployModelOperator(task_id="deploy", decision=given["decision"], **more)
        return task.execute(make_context(task_id="deploy"))

    with pytest.raises(AirflowSkipException, match="held: no gates"):
        execute()
    with pytest.raises(AirflowFailException, match=r"gate\.not_promoted"):
        execute(on_held="fail")
    assert PromotionDecision.from_json(execute(on_held="succeed")).outcome is PromotionOutcome.HELD


def test_an_approval_that_rendered_to_nothing_is_not_no_approval(
    given: dict[str, Any], make_context: MakeContext
) -> None:
    task = DeployModelOperator(task_id="deploy", evaluation=given["evaluation"], approval="{{ nothing }}")
    task.approval = ""

    with pytest.raises(AirflowFailException, match=r"approval of task deploy is empty"):
        task.execute(make_context(task_id="deploy"))


def test_a_check_needs_a_model_and_a_deployment_that_rendered_to_something(make_context: MakeContext) -> None:
    with pytest.raises(AirflowFailException, match="not told which model"):
        CheckDeploymentOperator(task_id="check").execute(make_context(task_id="check"))
    task = CheckDeploymentOperator(task_id="check", model_name="late", deployment="{{ nothing }}")
    task.deployment = ""
    with pytest.raises(AirflowFailException, match="deployment of task check is empty"):
        task.execute(make_context(task_id="check"))


def test_nobody_to_check_is_told(make_context: MakeContext) -> None:
    with pytest.raises(AirflowFailException, match="late has no champion"):
        CheckDeploymentOperator(task_id="check", model_name="late").execute(make_context(task_id="check"))
