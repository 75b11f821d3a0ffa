"""The freshness trigger in an event loop: it serializes, waits, gives up, and bears a silent storage."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from airflow_provider_xops.errors import LakeError, UnavailableError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.storage import LocalStorage
from airflow_provider_xops.quality.waiting import Wait
from airflow_provider_xops.triggers.dataset import DatasetFreshnessTrigger
from tests.unit.quality.days import day, load, utc

WAIT = Wait(table="t__raw", partitions=(day(0),), since=utc("2013-01-02"))


def trigger(**options: Any) -> DatasetFreshnessTrigger:
    options.setdefault("poke_interval", 0.01)
    options.setdefault("wait", WAIT.to_json())
    made = DatasetFreshnessTrigger(lake_conn_id="xops_lake_default", **options)
    # As Airflow does: by class path and JSON arguments.
    path, arguments = made.serialize()
    assert path == f"{DatasetFreshnessTrigger.__module__}.{DatasetFreshnessTrigger.__qualname__}"
    again = DatasetFreshnessTrigger(**json.loads(json.dumps(arguments)))
    assert again.serialize() == made.serialize()
    return again


async def first_event(waiting: DatasetFreshnessTrigger, seconds: float = 20) -> dict[str, Any]:
    event = await asyncio.wait_for(anext(waiting.run()), seconds)
    payload: dict[str, Any] = json.loads(json.dumps(event.payload))
    return payload


def test_event_comes_when_the_partition_does(lake: Lake) -> None:
    async def scenario() -> dict[str, Any]:
        waiting = asyncio.create_task(first_event(trigger()))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await asyncio.to_thread(load, lake, [(day(0), 1.0)])
        return await waiting

    event = asyncio.run(scenario())

    assert (event["status"], event["table"], event["version"]) == ("fresh", "t__raw", 0)


def test_late_data_end_the_wait_unless_it_is_patient() -> None:
    late = Wait.from_json(WAIT.to_json() | {"schedule": {"every": "daily"}}).to_json()

    assert asyncio.run(first_event(trigger(wait=late)))["status"] == "late"
    with pytest.raises(TimeoutError):
        asyncio.run(first_event(trigger(wait=late, give_up_when_late=False), 0.5))


def test_silent_storage_is_asked_again_and_the_count_starts_anew(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given storage that answers only every third time, and a trigger that bears two silences
    load(lake, [(day(1), 1.0)])
    real, calls = LocalStorage.get, []

    def sometimes(self: LocalStorage, path: str) -> bytes | None:
        if path == "_xops/lake.json":
            calls.append(path)
            if len(calls) % 3:
                raise UnavailableError("the storage did not answer", code="unavailable.storage")
            if len(calls) == 6:
                load(lake, [(day(0), 1.0)])
        return real(self, path)

    monkeypatch.setattr(LocalStorage, "get", sometimes)

    event = asyncio.run(first_event(trigger(patience=2)))

    assert (event["status"], len(calls)) == ("fresh", 6)


def test_patience_ends_and_the_event_says_that_a_retry_may_help(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: LocalStorage, path: str) -> bytes | None:
        raise UnavailableError("the storage did not answer", code="unavailable.storage")

    monkeypatch.setattr(LocalStorage, "get", never)

    event = asyncio.run(first_event(trigger(patience=2)))

    assert (event["status"], event["error"]["code"], event["error"]["retryable"]) == (
        "error", "unavailable.storage", True,
    )  # fmt: skip


def test_other_errors_end_the_wait_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def broken(self: LocalStorage, path: str) -> bytes | None:
        calls.append(path)
        raise LakeError("this lake is broken", code="lake.unreadable")

    monkeypatch.setattr(LocalStorage, "get", broken)

    event = asyncio.run(first_event(trigger()))

    assert (event["error"]["code"], event["error"]["retryable"], len(calls)) == ("lake.unreadable", False, 1)


def test_look_that_hangs_does_not_hold_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def hanging(self: LocalStorage, path: str) -> bytes | None:
        time.sleep(0.6)
        raise UnavailableError("too late")

    monkeypatch.setattr(LocalStorage, "get", hanging)

    async def scenario() -> tuple[dict[str, Any], int]:
        ticks = 0
        waiting = asyncio.create_task(first_event(trigger(look_timeout=0.2, patience=0)))
        while not waiting.done():
            await asyncio.sleep(0.01)
            ticks += 1
        return await waiting, ticks

    event, ticks = asyncio.run(scenario())

    assert "took too long" in event["error"]["what"]
    assert ticks > 5


def test_canceled_wait_leaves_nothing_behind(lake: Lake) -> None:
    async def scenario() -> None:
        waiting = asyncio.create_task(first_event(trigger(poke_interval=30)))
        await asyncio.sleep(0.2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())


class Unanswered(DatasetFreshnessTrigger):
    """Looks that take no time, so that a cancellation often comes together with the answer."""

    def _look(self) -> dict[str, Any]:
        return {"status": "waiting"}


def test_cancellation_is_not_lost_when_it_comes_with_the_answer() -> None:
    async def scenario() -> int:
        lost = 0
        for steps in range(40, 240):
            waiting = asyncio.ensure_future(
                anext(Unanswered(lake_conn_id="x", wait={}, poke_interval=0).run())
            )
            for _ in range(steps):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting], timeout=5)
            lost += not waiting.done()
            while not waiting.done():
                waiting.cancel()
                await asyncio.sleep(0)
        return lost

    assert asyncio.run(scenario()) == 0
