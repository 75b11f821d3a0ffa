"""The operators that ask gates and promote, on a real lake and a real MLflow server."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.operators.model import CheckGatesOperator, PromoteModelOperator
from airflow_provider_xops.records import Evaluation, GateReport, ModelVersion
from airflow_provider_xops.registry.approvals import approve
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.version_compat import AirflowFailException, AirflowSkipException, Asset
from tests.integration.registry_steps import bare_version, fresh_name
from tests.servers import MlflowServer
from tests.unit.registry.builders import an_actor, an_evaluation

MakeContext = Callable[..., dict[str, Any]]
APPROVED = {"gate": "approved", "people": 1, "roles": [], "trainer_counts": True}
POLICY = [{"gate": "metric_threshold", "metric": "roc_auc", "minimum": 0.5}, APPROVED]


@pytest.fixture(autouse=True)
def mlflow_connection(mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session's MLflow server is the default connection's."""
    fields = {"conn_type": "xops_mlflow", "host": mlflow_server.url, "extra": {"timeout": 30}}
    monkeypatch.setenv("AIRFLOW_CONN_XOPS_MLFLOW_DEFAULT", json.dumps(fields))


@pytest.fixture
def model(mlflow_server: MlflowServer, lake: Lake) -> ModelVersion:
    return bare_version(RegistryClient(mlflow_server.settings()), lake, fresh_name())


@pytest.fixture
def evaluation(lake: Lake, model: ModelVersion) -> Evaluation:
    """Of a model whose approval was left for promotion."""
    made = dataclasses.replace(an_evaluation(model), deferred_gates=(APPROVED,))
    lake.evidence.put(made)
    return made


def approved(lake: Lake, model: ModelVersion) -> None:
    # At a moment of long ago: contexts act at the present one.
    approve(lake, model, reason="reviewed", actor=an_actor(), as_of=datetime(2026, 1, 1, tzinfo=UTC))


def promote(
    make_context: MakeContext, evaluation: Any, run_id: str = "run_1", **arguments: Any
) -> dict[str, Any]:
    operator = PromoteModelOperator(task_id="promote", evaluation=evaluation, **arguments)
    return operator.execute(make_context(task_id="promote", run_id=run_id))


def check(make_context: MakeContext, **arguments: Any) -> dict[str, Any]:
    operator = CheckGatesOperator(task_id="check", **({"gates": POLICY} | arguments))
    return operator.execute(make_context(task_id="check"))


def test_promotion_asks_deferred_gates_itself_and_the_cleared_task_decides_anew(
    lake: Lake, model: ModelVersion, evaluation: Evaluation, make_context: MakeContext
) -> None:
    held = promote(make_context, evaluation.to_json())
    assert (held["outcome"], held["applied"]) == ("held", False)
    assert "approved by 0 of 1 people" in held["reason"]

    approved(lake, model)
    done = promote(make_context, evaluation.record_id)

    assert (done["outcome"], done["applied"]) == ("promoted", True)
    assert len(done["evidence"]) == 3


def test_a_gate_report_is_taken_from_the_task_before(
    lake: Lake, model: ModelVersion, evaluation: Evaluation, make_context: MakeContext
) -> None:
    approved(lake, model)
    report = check(make_context, evaluation=evaluation.to_json())
    assert (report["kind"], report["outcome"]) == (GateReport.kind, "passed")

    done = promote(make_context, evaluation.to_json(), gate_report=report)

    assert done["outcome"] == "promoted"
    assert done["evidence"][2] == report["record_id"]


def test_a_report_on_another_policy_stops_the_task(
    lake: Lake, model: ModelVersion, evaluation: Evaluation, make_context: MakeContext
) -> None:
    approved(lake, model)
    report = check(make_context, evaluation=evaluation.to_json(), gates=POLICY[:1])
    assert report["outcome"] == "passed"
    with pytest.raises(AirflowFailException, match=r"argument\.gate_report"):
        promote(make_context, evaluation.to_json(), gate_report=report)


def test_a_closed_gate_is_an_ordinary_outcome_unless_the_task_is_told_otherwise(
    evaluation: Evaluation, make_context: MakeContext
) -> None:
    assert check(make_context, evaluation=evaluation.record_id)["outcome"] == "no_data"
    with pytest.raises(AirflowFailException, match=r"gate\.no_data.*approved by 0 of 1 people"):
        check(make_context, evaluation=evaluation.record_id, on_failure="fail")
    with pytest.raises(AirflowSkipException):
        check(make_context, evaluation=evaluation.record_id, on_failure="skip")


def test_only_a_passed_report_emits_an_event(
    lake: Lake, model: ModelVersion, evaluation: Evaluation, make_context: MakeContext
) -> None:
    def extra() -> Any:
        context = make_context(task_id="check")
        operator = CheckGatesOperator(
            task_id="check", gates=POLICY, evaluation=evaluation.to_json(), outlets=[Asset("gates")]
        )
        operator.execute(context)
        return operator.outlets, context["outlet_events"][Asset("gates")].extra

    assert extra()[0] == []
    approved(lake, model)
    outlets, emitted = extra()
    assert outlets
    assert emitted["outcome"] == "passed"


@pytest.mark.parametrize(
    "gates", [json.dumps(POLICY), str(POLICY), json.dumps({"name": "p", "gates": POLICY})]
)
def test_a_policy_may_arrive_as_the_text_that_a_template_leaves(
    evaluation: Evaluation, make_context: MakeContext, gates: str
) -> None:
    report = check(make_context, evaluation=evaluation.record_id, gates=gates)
    assert [result["gate"] for result in report["results"]] == ["metric_threshold:roc_auc", "approved"]


def test_a_model_without_an_evaluation_is_asked_for_evidence_alone(
    lake: Lake, model: ModelVersion, make_context: MakeContext
) -> None:
    approved(lake, model)
    report = check(make_context, model=model.record_id, gates=[APPROVED])
    assert (report["outcome"], report["evaluation"]) == ("passed", None)
    with_figures = check(make_context, model=model.record_id)
    assert with_figures["outcome"] == "no_data"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({}, "argument.empty"),
        ({"model": "m", "evaluation": "e"}, "argument.empty"),
        ({"evaluation": "e", "gates": ""}, "argument.empty"),
        ({"evaluation": "e", "gates": [{"gate": "aproved"}]}, "argument.gate"),
        ({"evaluation": "e", "on_failure": "ignore"}, "argument.on_failure"),
    ],
)
def test_unusable_arguments_are_refused(
    make_context: MakeContext, arguments: dict[str, Any], code: str
) -> None:
    with pytest.raises(AirflowFailException) as caught:
        check(make_context, **arguments)
    assert code in str(caught.value)
