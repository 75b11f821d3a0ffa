"""Deployment tasks that wait without a worker: what they hand to the triggerer, and how they go on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_xops.hooks.serving import ServingHook
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.operators._base import RegistryOperator
from airflow_provider_xops.operators.model import CheckDeploymentOperator, DeployModelOperator
from airflow_provider_xops.records import Actor, DeploymentCheck, Outcome, PromotionOutcome
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.ledger import Draft
from airflow_provider_xops.serving.targets import _time
from airflow_provider_xops.serving.targets.base import VersionFigures
from airflow_provider_xops.serving.targets.rollout import list_deployments
from tests.unit.registry.fake_registry import recorded_models
from tests.unit.serving.targets.folder_target import FolderTarget

MakeContext = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_XOPS_MLFLOW_DEFAULT", '{"conn_type": "xops_mlflow", "host": "http://127.0.0.1:1"}'
    )


@pytest.fixture
def model(lake: Lake) -> str:
    """A version that is about to be tried out."""
    return recorded_models(lake, 2)[1].record_id


@pytest.fixture
def tried_out(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderTarget:
    """A target that serves version 1; no wait is so short that it is waited for in the worker."""
    figures = {1: VersionFigures(requests=50, errors=0), 2: VersionFigures(requests=50, errors=0)}
    target = FolderTarget(tmp_path / "target.json", serves=1, figures=lambda: figures)
    monkeypatch.setattr(ServingHook, "get_target", lambda self, *_, **__: target)
    monkeypatch.setattr(_time, "HERE_SECONDS", 0.0)
    monkeypatch.setattr(RegistryOperator, "link_model", lambda *_, **__: None)
    return target


def go_on(task: Any, context: dict[str, Any], deferred: TaskDeferred) -> Any:
    """As Airflow does, at the moment that the trigger says: with what went through JSON."""
    at = datetime.fromisoformat(deferred.trigger.serialize()[1]["at"])
    time.sleep(max((at - datetime.now(UTC)).total_seconds(), 0))
    kwargs = json.loads(json.dumps(deferred.kwargs))
    return task.resume_execution(deferred.method_name, {**kwargs, "event": {"at": at.isoformat()}}, context)


def test_a_task_that_may_go_away_goes_on_where_it_was(
    model: str, tried_out: FolderTarget, lake: Lake, make_context: MakeContext
) -> None:
    health = {"golden": False, "min_requests": 1}

    def made() -> DeployModelOperator:
        return DeployModelOperator(
            task_id="deploy", model=model, golden=False, health=health, soak_seconds=1,
            deferrable=True,
        )  # fmt: skip

    with pytest.raises(TaskDeferred) as away:
        made().execute(make_context(task_id="deploy"))

    (under_way,) = list_deployments(lake)
    path, arguments = away.value.trigger.serialize()
    assert path.endswith("NextLookTrigger")
    assert arguments["deployment"] == under_way.deployment.record_id
    assert (arguments["lake_conn_id"], arguments["serving_conn_id"]) == (
        "xops_lake_default", "xops_serving_default",
    )  # fmt: skip
    assert tried_out.state["shares"] == {"2": 0.1}

    returned = go_on(made(), make_context(task_id="deploy"), away.value)

    assert (returned["outcome"], returned["reused"]) == ("passed", False)
    assert tried_out.calls.count("mark") == 1
    assert [each.state for each in list_deployments(lake)] == ["tried out"]


def test_whether_it_goes_away_is_told_by_the_argument_else_by_airflow(
    model: str,
    tried_out: FolderTarget,
    make_context: MakeContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")

    def execute(run_id: str, **more: Any) -> Any:
        task = DeployModelOperator(
            task_id="deploy", model=model, golden=False, soak_seconds=0.2, poll_seconds=0.1,
            health={"golden": False, "min_requests": 1}, **more,
        )  # fmt: skip
        return task.execute(make_context(task_id="deploy", run_id=run_id))

    assert execute("held", deferrable=False)["outcome"] == "passed"
    with pytest.raises(TaskDeferred):
        execute("away", supersede=True)


def test_a_check_that_may_go_away_goes_on_with_its_window(
    tried_out: FolderTarget, lake: Lake, actor: Actor, as_of: datetime,
    make_context: MakeContext,
) -> None:  # fmt: skip
    (served,) = recorded_models(lake, 1)

    def promoted(now: Any) -> Draft:
        return Draft(
            outcome=PromotionOutcome.PROMOTED, reason="good", to_version=1,
            to_created_at_ms=served.created_at_ms, artifact_digest=served.artifact_digest,
        )  # fmt: skip

    ledger.append(lake, served.name, "live", promoted, actor=actor, as_of=as_of)

    def made() -> CheckDeploymentOperator:
        return CheckDeploymentOperator(
            task_id="check", model_name=served.name, alias="live", seconds=1, deferrable=True,
            health={"golden": False, "min_requests": 1}, on_failure="fail",
        )  # fmt: skip

    with pytest.raises(TaskDeferred) as away:
        made().execute(make_context(task_id="check"))
    # A check that is ended leaves nothing behind.
    assert away.value.trigger.serialize()[1]["deployment"] is None

    returned = go_on(made(), make_context(task_id="check"), away.value)

    assert DeploymentCheck.from_json(returned).outcome is Outcome.PASSED
    assert tried_out.calls.count("mark") == 1
