"""Deadline alerts for datasets: somebody hears of it when a DAG has not delivered in time.

For DAGs on Airflow 3.1 and newer, whose scheduler watches deadlines. A sensor looks from the consumer's side;
a deadline from the producer's::

    DAG("flights_dataops", schedule="@daily", deadline=dataset_deadline("flights", after=timedelta(hours=6)))

When the run has not ended by then, Airflow's triggerer calls :func:`dataset_is_late`, which records a
``late_dataset`` incident in the lake and logs it. The run goes on.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_provider_xops import records
from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.hooks.lake import LakeHook

__all__ = ["dataset_deadline", "dataset_is_late"]

log = logging.getLogger(__name__)

INCIDENT = "late_dataset"
REFERENCES = {"logical_date": "DAGRUN_LOGICAL_DATE", "queued_at": "DAGRUN_QUEUED_AT"}


def dataset_deadline(
    table: str,
    *,
    after: timedelta,
    reference: Any = "logical_date",
    lake_conn_id: str = LakeHook.default_conn_name,
    name: str | None = None,
) -> Any:
    """Airflow's ``DeadlineAlert`` for a DAG that fills ``table``; pass it as the DAG's ``deadline``.

    :param after: how long after the reference the run must have ended.
    :param reference: ``logical_date``, ``queued_at``, or one of Airflow's own ``DeadlineReference``.
    :param lake_conn_id: the Airflow connection of the lake that the incident goes to.
    :param name: shown in the UI (Airflow 3.3; ignored before).
    :raises ArgumentError: ``argument.no_deadlines``: this Airflow has no deadline alerts;
        ``argument.reference``: an unknown reference.

    What it does not do: a run started by assets or by hand may have no logical date, and then has no deadline
    by it; use ``queued_at`` there.
    """
    try:
        # One place on Airflow 3.1, 3.2 and 3.3, though AsyncCallback has moved below it since.
        from airflow.sdk.definitions.deadline import (  # type: ignore[attr-defined]
            AsyncCallback,
            DeadlineAlert,
            DeadlineReference,
        )
    except ImportError:
        raise ArgumentError(
            f"there is no deadline for {table}", code="argument.no_deadlines",
            why="this Airflow has no deadline alerts", todo="upgrade to Airflow 3.1, or use a sensor",
        ) from None  # fmt: skip
    if isinstance(reference, str):
        if reference not in REFERENCES:
            raise ArgumentError(
                f"reference is {reference[:80]!r}", code="argument.reference",
                todo=f"use one of {', '.join(REFERENCES)}, or a DeadlineReference",
            )  # fmt: skip
        reference = getattr(DeadlineReference, REFERENCES[reference])
    named = {"name": name} if name and "name" in inspect.signature(DeadlineAlert).parameters else {}
    return DeadlineAlert(
        reference=reference,
        interval=after,
        callback=AsyncCallback(dataset_is_late, kwargs={"table": table, "lake_conn_id": lake_conn_id}),
        **named,
    )


async def dataset_is_late(
    *, table: str, lake_conn_id: str = LakeHook.default_conn_name, context: Mapping[str, Any] | None = None
) -> str:
    """Record that a dataset is late; gives the id of the incident. Called by Airflow's triggerer.

    :param context: what Airflow tells: ``dag_run`` and ``deadline``.
    """
    from asgiref.sync import sync_to_async

    return await sync_to_async(_record, thread_sensitive=False)(table, lake_conn_id, context or {})


def _record(table: str, lake_conn_id: str, context: Mapping[str, Any]) -> str:
    run, deadline = context.get("dag_run") or {}, context.get("deadline") or {}
    dag_id, run_id = run.get("dag_id") or "unknown", run.get("dag_run_id") or run.get("run_id") or "unknown"
    due = _moment(deadline.get("deadline_time"))
    told = f" by {due.isoformat()}" if due is not None else " in time"
    incident = records.Incident(
        recorded_at=datetime.now(UTC),
        produced_by=records.Producer(
            kind=records.ActorKind.SERVICE, id=f"{dag_id}/{run_id}/deadline", dag_id=dag_id, run_id=run_id
        ),
        event_time=due,
        incident=INCIDENT,
        subject=f"{table}/{dag_id}/{run_id}",
        severity=records.Severity.WARNING,
        message=f"Run {run_id} of DAG {dag_id} has not delivered {table}{told}.",
        next_step="look at the run's tasks in Airflow: what waits, what failed, what is slow",
    )
    LakeHook(lake_conn_id).get_lake().evidence.put(incident)
    log.warning("%s Incident %s.", incident.message, incident.record_id)
    return incident.record_id


def _moment(given: Any) -> datetime | None:
    if isinstance(given, str):
        try:
            given = datetime.fromisoformat(given)
        except ValueError:
            return None
    if not isinstance(given, datetime):
        return None
    return (given if given.tzinfo else given.replace(tzinfo=UTC)).astimezone(UTC)
