"""The trigger of a waiting rollout: it fires at its moment, and ends the rollout of a task that is over."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from airflow_provider_xops.errors import UnavailableError
from airflow_provider_xops.hooks.serving import ServingHook
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Deployment
from airflow_provider_xops.serving.targets.rollout import list_deployments
from airflow_provider_xops.triggers.deployment import NextLookTrigger
from tests.unit.registry.fake_registry import recorded_models
from tests.unit.serving.targets.builders import a_deployment
from tests.unit.serving.targets.folder_target import FolderTarget

CONNECTIONS = {
    "lake_conn_id": "xops_lake_default", "mlflow_conn_id": "xops_mlflow_default", "serving_conn_id": "models",
}  # fmt: skip


def trigger(**changes: Any) -> NextLookTrigger:
    made = NextLookTrigger(**({"at": "2026-01-15T12:00:00+00:00", **CONNECTIONS} | changes))
    # As Airflow does: by class path and JSON arguments.
    path, arguments = made.serialize()
    assert path == f"{NextLookTrigger.__module__}.{NextLookTrigger.__qualname__}"
    again = NextLookTrigger(**json.loads(json.dumps(arguments)))
    again.task_instance = SimpleNamespace(  # type: ignore[assignment]
        dag_id="dag", run_id="run", task_id="deploy", map_index=-1, try_number=1
    )
    return again


@pytest.fixture
def away(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[FolderTarget, Deployment]:
    """A try-out at half of the requests, whose task waits; its target, and what its records say."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_XOPS_MLFLOW_DEFAULT", '{"conn_type": "xops_mlflow", "host": "http://127.0.0.1:1"}'
    )
    old, new, *_ = recorded_models(lake)
    target = FolderTarget(tmp_path / "target.json", serves=1)
    target._write({"loaded": [1, 2], "shares": {"1": 0.5, "2": 0.5}, "shadows": {}})
    deployment = a_deployment(
        new, target=target.kind, endpoint=target.endpoint, previous=old.ref, steps=(0.5,),
        settings={"decides": False},
    )  # fmt: skip
    lake.evidence.put(deployment)
    monkeypatch.setattr(ServingHook, "get_target", lambda self, *_, **__: target)
    return target, deployment


def ended(monkeypatch: pytest.MonkeyPatch, state: str | None) -> None:
    monkeypatch.setattr(
        RuntimeTaskInstance, "get_task_states", staticmethod(lambda **_: {"run": {"deploy": state}})
    )


def test_it_fires_at_its_moment_also_if_that_has_passed() -> None:
    async def event(at: datetime) -> Any:
        waiting = trigger(at=at.isoformat())
        found = await asyncio.wait_for(anext(waiting.run()), 20)
        return found.payload, datetime.now(UTC)

    soon = datetime.now(UTC) + timedelta(seconds=0.3)
    payload, fired = asyncio.run(event(soon))
    assert payload == {"at": soon.isoformat()}
    assert fired >= soon
    past = datetime(2026, 1, 15, tzinfo=UTC)
    assert asyncio.run(event(past))[0] == {"at": past.isoformat()}


@pytest.mark.parametrize("state", ["failed", "success", "skipped"])
def test_a_task_that_is_over_leaves_nothing_half_way(
    lake: Lake, away: tuple[FolderTarget, Deployment], monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    target, deployment = away
    ended(monkeypatch, state)

    asyncio.run(trigger(deployment=deployment.record_id).on_kill())

    assert target.state == {"loaded": [1], "shares": {"1": 1.0}, "shadows": {}}
    (left,) = list_deployments(lake)
    assert (left.state, left.message) == ("cancelled", f"the task was ended while it waited ({state})")
    assert left.steps[-1].produced_by.task_id == "deploy"


@pytest.mark.parametrize("state", [None, "scheduled", "running", "deferred", "up_for_retry"])
def test_a_task_that_goes_on_keeps_its_deployment(
    lake: Lake, away: tuple[FolderTarget, Deployment], monkeypatch: pytest.MonkeyPatch, state: str | None
) -> None:
    target, deployment = away
    ended(monkeypatch, state)

    asyncio.run(trigger(deployment=deployment.record_id).on_kill())

    assert target.calls == []
    assert [each.state for each in list_deployments(lake)] == ["under way"]


def test_what_could_not_be_left_is_said_with_what_to_do(
    lake: Lake,
    away: tuple[FolderTarget, Deployment],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target, deployment = away
    ended(monkeypatch, "failed")
    said: list[str] = []
    log = SimpleNamespace(error=lambda text, *values: said.append(text % values))
    monkeypatch.setattr(NextLookTrigger, "log", log)

    def silent(name: str, model: Any) -> None:
        raise UnavailableError("the target did not answer", code="unavailable.server")

    target.fault = silent
    asyncio.run(trigger(deployment=deployment.record_id).on_kill())

    (line,) = said
    assert "the target did not answer" in line
    assert f"xops deploy --abort {deployment.record_id}" in line
    assert [each.state for each in list_deployments(lake)] == ["under way"]


def test_a_check_leaves_nothing_behind(
    away: tuple[FolderTarget, Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        RuntimeTaskInstance, "get_task_states", staticmethod(lambda **_: pytest.fail("asked"))
    )

    asyncio.run(trigger(deployment=None).on_kill())

    assert away[0].calls == []
