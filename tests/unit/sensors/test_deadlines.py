"""Deadline alerts: the DAG carries one through serialization, and its callback records an incident."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from airflow.sdk import DAG

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Incident
from airflow_provider_xops.sensors.deadlines import dataset_deadline, dataset_is_late

CONTEXT = {
    "dag_run": {"dag_id": "flights", "dag_run_id": "scheduled__2013-01-01", "logical_date": None},
    "deadline": {"id": "0193", "deadline_time": "2013-01-01T06:00:00Z"},
}


def test_callback_records_one_incident(lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    first = asyncio.run(dataset_is_late(table="flights", context=CONTEXT))
    again = asyncio.run(dataset_is_late(table="flights", context=CONTEXT))

    incident = lake.evidence.get(Incident.kind, first)
    assert isinstance(incident, Incident)
    assert (again, incident.incident) == (first, "late_dataset")
    assert incident.message == (
        "Run scheduled__2013-01-01 of DAG flights has not delivered flights by 2013-01-01T06:00:00+00:00."
    )
    assert (incident.produced_by.dag_id, incident.produced_by.run_id) == ("flights", "scheduled__2013-01-01")
    assert incident.message in caplog.text


def test_dag_with_a_deadline_survives_serialization() -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    alert = dataset_deadline("flights", after=timedelta(hours=6), name="late flights")
    with DAG("with_deadline", schedule="@daily", deadline=alert) as dag:
        pass

    again = DagSerialization.from_dict(DagSerialization.to_dict(dag))

    assert again.deadline
    assert alert.callback.path == "airflow_provider_xops.sensors.deadlines.dataset_is_late"
    assert alert.callback.kwargs == {"table": "flights", "lake_conn_id": "xops_lake_default"}
    assert alert.interval == timedelta(hours=6)


def test_airflows_trigger_runs_the_callback(lake: Lake) -> None:
    # given what the scheduler hands to the triggerer when a deadline is missed
    from airflow.triggers.callback import CallbackTrigger

    alert = dataset_deadline("flights", after=timedelta(hours=6), reference="queued_at")
    trigger = CallbackTrigger(alert.callback.path, {**alert.callback.kwargs, "context": CONTEXT})

    async def events() -> list[str]:
        return [str(event.payload["state"]) async for event in trigger.run()]

    assert asyncio.run(events())[-1].endswith("success")
    assert len(list(lake.evidence.all(Incident.kind))) == 1


def test_unknown_reference_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"argument\.reference"):
        dataset_deadline("flights", after=timedelta(hours=1), reference="tomorrow")
