"""Waiting for the next look at a rollout, where no worker is held; and leaving the rollout when it is killed.

For the deployment operators.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_xops.errors import XOpsError

__all__ = ["NextLookTrigger"]

_ENDED = ("success", "failed", "skipped", "removed", "upstream_failed")


class NextLookTrigger(BaseTrigger):
    """Fires at a moment. It looks at nothing: the task does, when it goes on.

    When somebody ends the task meanwhile (marked as failed or succeeded, its run ended), it does what the
    task in a worker would do when it is ended: before the ledger's entry the version is unloaded, after it
    everything stays as it is. A task that was cleared goes on with its deployment itself.

    :param at: when it fires: ISO 8601 with its zone.
    :param deployment: record id of the deployment that waits; empty: nothing is left behind.
    :param lake_conn_id: the Airflow connection of the lake,
    :param mlflow_conn_id: of the MLflow server,
    :param serving_conn_id: and of the target; asked for only when the task is ended.

    The event is ``at``.

    What it does not do: Airflow before 3.3 tells no trigger that its task was ended, nor does 3.3 in the
    second before a triggerer has taken it; and the triggerer must reach what the connections name (the
    repository folder of a V2 target, for example). Where nobody is told, ``xops deploy --abort`` does it.
    """

    def __init__(
        self,
        *,
        at: str,
        deployment: str | None = None,
        lake_conn_id: str = "",
        mlflow_conn_id: str = "",
        serving_conn_id: str = "",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.at = at
        self.deployment = deployment
        self.lake_conn_id = lake_conn_id
        self.mlflow_conn_id = mlflow_conn_id
        self.serving_conn_id = serving_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Its class path and arguments, plain JSON types."""
        return (
            "airflow_provider_xops.triggers.deployment.NextLookTrigger",
            {
                "at": self.at,
                "deployment": self.deployment,
                "lake_conn_id": self.lake_conn_id,
                "mlflow_conn_id": self.mlflow_conn_id,
                "serving_conn_id": self.serving_conn_id,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait until the moment has come; one event."""
        due = datetime.fromisoformat(self.at)
        while (left := (due - datetime.now(UTC)).total_seconds()) > 0:
            await asyncio.sleep(min(left, 60.0))
        yield TriggerEvent({"at": self.at})  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Leave the rollout, unless the task goes on by itself. Airflow gives it seconds."""
        from asgiref.sync import sync_to_async

        if self.deployment is None:
            return
        try:
            state = await sync_to_async(self._task_state)()
            if state not in _ENDED:
                self.log.info("The task goes on (%s): deployment %s stays.", state, self.deployment[:12])
                return
            await sync_to_async(self._leave, thread_sensitive=False)(self.deployment, state)
        except Exception as error:  # whatever it is, somebody must hear what is left to do
            self.log.error(
                "Deployment %s was not left: %s. End it with `xops deploy --abort %s`.",
                self.deployment[:12],
                error if isinstance(error, XOpsError) else type(error).__name__,
                self.deployment,
            )

    def _task_state(self) -> str | None:
        """What has become of the task; None: it was cleared, or is gone."""
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        ti: Any = self.task_instance
        found = RuntimeTaskInstance.get_task_states(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
        )
        return next(iter((found.get(ti.run_id) or {}).values()), None)

    def _leave(self, record_id: str, state: str) -> None:
        """In a thread of its own; nothing of the lake is imported before."""
        from airflow_provider_xops.hooks.lake import LakeHook
        from airflow_provider_xops.hooks.mlflow import MlflowHook
        from airflow_provider_xops.hooks.serving import ServingHook
        from airflow_provider_xops.records import Actor, ActorKind, Deployment, Producer
        from airflow_provider_xops.serving.targets.rollout import leave_deployment

        ti: Any = self.task_instance
        lake, registry = (
            LakeHook(self.lake_conn_id).get_lake(),
            MlflowHook(self.mlflow_conn_id).get_registry(),
        )
        deployment = lake.evidence.resolve(record_id, Deployment.kind)
        assert isinstance(deployment, Deployment)
        producer = Producer(
            kind=ActorKind.TASK, id=f"{ti.dag_id}/{ti.run_id}/{ti.task_id}", dag_id=ti.dag_id,
            run_id=ti.run_id, task_id=ti.task_id, try_number=ti.try_number,
            map_index=ti.map_index if ti.map_index is not None and ti.map_index >= 0 else None,
        )  # fmt: skip
        fence = int(_now().timestamp() * 1_000_000)
        actor = Actor(producer=producer, idempotency_key=f"{record_id}/left", fence=fence)
        target = ServingHook(self.serving_conn_id).get_target(lake, registry, actor=actor, clock=_now)
        left = leave_deployment(
            lake, registry, target, deployment, why=f"the task was ended while it waited ({state})",
            actor=actor, clock=_now,
        )  # fmt: skip
        self.log.info("Deployment %s: %s.", record_id[:12], left.state)


def _now() -> datetime:
    return datetime.now(UTC)
