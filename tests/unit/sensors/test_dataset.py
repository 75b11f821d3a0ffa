"""The freshness sensor: what it waits for, how it defers, and what late data do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, TaskDeferred

from airflow_provider_xops.errors import UnavailableError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.storage import LocalStorage
from airflow_provider_xops.quality.waiting import Wait, look
from airflow_provider_xops.records import Incident
from airflow_provider_xops.sensors.dataset import DatasetFreshnessSensor
from airflow_provider_xops.triggers.dataset import DatasetFreshnessTrigger
from airflow_provider_xops.version_compat import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
)
from tests.unit.quality.days import day, load, utc

MakeContext = Callable[..., dict[str, Any]]
DAILY = {"every": "daily", "grace": "6h"}


def sensor(**options: Any) -> DatasetFreshnessSensor:
    options.setdefault("poke_interval", 0.01)
    options.setdefault("timeout", 0.1)
    return DatasetFreshnessSensor(task_id="wait", table="t__raw", **options)


@pytest.fixture
def context(make_context: MakeContext) -> dict[str, Any]:
    return make_context() | {"dag_run": SimpleNamespace(run_after=utc("2013-01-02T00:05"))}


def test_fresh_table_is_passed_at_once(lake: Lake, context: dict[str, Any]) -> None:
    load(lake, [(day(0), 1.0)])

    for deferrable in (False, True):
        found = sensor(partition=day(0), deferrable=deferrable).execute(context)
        assert (found["status"], found["table"], found["version"]) == ("fresh", "t__raw", 0)


def test_poking_ends_at_the_timeout(lake: Lake, context: dict[str, Any]) -> None:
    with pytest.raises(AirflowSensorTimeout):
        sensor(partition=day(0)).execute(context)


def test_deferrable_sensor_hands_its_wait_to_the_trigger(lake: Lake, context: dict[str, Any]) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        sensor(
            partition=[day(0), day(1)],
            max_age=timedelta(hours=1),
            deferrable=True,
            timeout=60,
            on_late="wait",
        ).execute(context)

    trigger = deferred.value.trigger
    assert isinstance(trigger, DatasetFreshnessTrigger)
    assert (trigger.give_up_when_late, deferred.value.timeout) == (False, timedelta(seconds=60))
    assert trigger.wait == {
        "table": "t__raw",
        "partitions": [day(0), day(1)],
        "schedule": None,
        "max_age": 3600.0,
        "since": "2013-01-02T00:05:00+00:00",
    }


@pytest.mark.parametrize("deferrable", [False, True])
def test_late_data_fail_without_retries_and_open_an_incident(
    lake: Lake, context: dict[str, Any], deferrable: bool
) -> None:
    for _ in range(2):
        with pytest.raises(AirflowFailException, match=r"data\.late.*2013-01-01 not there"):
            sensor(schedule=DAILY, deferrable=deferrable).execute(context)

    (incident,) = lake.evidence.all(Incident.kind)
    assert isinstance(incident, Incident)
    assert (incident.incident, incident.subject) == ("missing_partition", f"t__raw/{day(0)}")
    assert incident.produced_by.task_id == "task"


def test_late_data_may_skip(lake: Lake, context: dict[str, Any]) -> None:
    with pytest.raises(AirflowSkipException):
        sensor(schedule=DAILY, on_late="skip", incident=False).execute(context)

    assert list(lake.evidence.all(Incident.kind)) == []


def test_what_the_trigger_found_ends_the_task(lake: Lake, context: dict[str, Any]) -> None:
    waiting = sensor(schedule=DAILY, on_late="skip")
    event = {
        "status": "late", "table": "t__raw", "version": None, "partitions": [day(0)], "missing": [day(0)],
        "due_at": "2013-01-02T06:00:00+00:00", "age_seconds": None,
    }  # fmt: skip

    with pytest.raises(AirflowSkipException, match="there is no table"):
        waiting.execute_complete(context, event)
    fresh = waiting.execute_complete(context, event | {"status": "fresh", "missing": []})
    assert fresh["status"] == "fresh"


@pytest.mark.parametrize(("retryable", "failure"), [(True, AirflowException), (False, AirflowFailException)])
def test_error_of_the_trigger_keeps_its_words_and_its_kind(
    context: dict[str, Any], retryable: bool, failure: type[Exception]
) -> None:
    error = UnavailableError("no answer", code="x.y", todo="look", retryable=retryable).to_json()

    with pytest.raises(AirflowException, match=r"\[x\.y\] no answer. Next step: look") as caught:
        sensor(partition=day(0)).execute_complete(context, {"status": "error", "error": error})

    assert type(caught.value) is failure


def test_silent_storage_is_borne_while_poking(
    lake: Lake, context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    load(lake, [(day(0), 1.0)])
    real, calls = LocalStorage.get, []

    def at_last(self: LocalStorage, path: str) -> bytes | None:
        calls.append(path)
        if len(calls) <= 2:
            raise UnavailableError("the storage did not answer")
        return real(self, path)

    monkeypatch.setattr(LocalStorage, "get", at_last)

    assert sensor(partition=day(0), timeout=20).execute(context)["status"] == "fresh"
    calls.clear()
    with pytest.raises(AirflowException, match="did not answer"):
        sensor(partition=day(0), timeout=20, patience=1).execute(context)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({}, r"argument\.wait"),
        ({"partition": ""}, r"argument\.empty"),
        ({"schedule": "often"}, r"user_code\.malformed"),
        ({"schedule": {"every": "often"}}, r"argument\.schedule"),
        ({"partition": day(0), "on_late": "panic"}, r"argument\.on_late"),
        ({"max_age": "soon"}, r"argument\.number"),
    ],
)
def test_unusable_arguments_fail_once(context: dict[str, Any], options: dict[str, Any], code: str) -> None:
    with pytest.raises(AirflowFailException, match=code):
        sensor(**options).execute(context)


def test_templates_may_render_to_text(lake: Lake, context: dict[str, Any]) -> None:
    load(lake, [(day(0), 1.0), (day(1), 1.0)])
    waiting = sensor(
        partition=f"['{day(0)}', '{day(1)}']", schedule="{'every': 'daily', 'grace': '6h'}", max_age="1e12"
    )

    assert waiting.execute(context)["partitions"] == [day(0), day(1)]


def test_commit_without_data_of_another_tool_hides_no_age(lake: Lake) -> None:
    from deltalake import DeltaTable

    load(lake, [(day(0), 1.0)], as_of=utc("2013-01-02"))
    DeltaTable(lake.storage.table_uri("t__raw")).alter.set_table_properties({"delta.appendOnly": "false"})
    wait = Wait(table="t__raw", max_age=timedelta(hours=2), since=utc("2013-01-02"))

    found = look(lake, wait, as_of=utc("2013-01-02T01:00"))

    assert (found.status, found.version, found.age_seconds) == ("fresh", 1, 3600.0)
