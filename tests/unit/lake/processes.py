"""What the tests of the lake run in other processes: racers, and a user without permissions."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from airflow_provider_xops.errors import XOpsError
from airflow_provider_xops.lake.lake import init_lake, open_lake
from airflow_provider_xops.records import Actor, DatasetRef, Incident, Pin, Severity
from airflow_provider_xops.settings import LakeSettings
from tests.processes import CONTEXT

__all__ = ["NOW", "incident", "pin_of", "put_in_rounds", "run_all", "try_as_nobody"]

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
PRODUCER = Actor.user("tester", key="k", fence=1).producer
NOBODY = 65534
TIMEOUT_S = 300


def pin_of(number: int, *, table: str = "flights", when: datetime = NOW, reason: str = "training") -> Pin:
    """A record with an identity of its own for each number."""
    ref = DatasetRef(lake_id="lake", table=table, table_uuid="uuid", version=number)
    return Pin(recorded_at=when, produced_by=PRODUCER, dataset=ref, reason=reason, holder="delay v1")


def incident(subject: str, message: str) -> Incident:
    """A record whose identity is its subject; the message is not part of it."""
    return Incident(
        recorded_at=NOW,
        produced_by=PRODUCER,
        incident="test",
        subject=subject,
        severity=Severity.INFO,
        message=message,
    )


def put_in_rounds(
    barrier: Any, number: int, settings: LakeSettings, rounds: int
) -> list[tuple[int, bool, bool]]:
    """In each round: one record that everybody writes at once, and one of one's own."""
    evidence = open_lake(settings).evidence
    answers = []
    for each in range(rounds):
        barrier.wait(TIMEOUT_S)
        shared = evidence.put(incident(f"round {each}", message=f"writer {number}"))
        answers.append((each, shared, evidence.put(pin_of(number * rounds + each))))
    return answers


def run_all(task: Callable[..., Any], count: int, *arguments: Any) -> list[Any]:
    """``task(barrier, number, *arguments)`` in ``count`` processes at once; their answers, in order."""
    barrier, answers = CONTEXT.Barrier(count), CONTEXT.Queue()
    workers = [
        CONTEXT.Process(target=_answer, args=(answers, barrier, number, task, arguments))
        for number in range(count)
    ]
    for worker in workers:
        worker.start()
    try:
        found = dict(answers.get(timeout=TIMEOUT_S) for _ in workers)
    finally:
        for worker in workers:
            worker.join(1 if worker.exitcode is None else TIMEOUT_S)
            worker.kill()
            worker.join()
    failures = [answer for answer in found.values() if isinstance(answer, str)]
    assert not failures, failures[0]
    return [found[number] for number in range(count)]


def try_as_nobody(barrier: Any, number: int, settings: LakeSettings, actions: Sequence[str]) -> list[str]:
    """The error codes of making and of opening a lake as a user who may not ("" where it worked)."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    codes = []
    for action in actions:
        try:
            if action == "init":
                init_lake(settings, actor=Actor.user("nobody", key="k", fence=1), as_of=NOW)
            elif action == "put":
                open_lake(settings).evidence.put(pin_of(1))
            else:
                open_lake(settings)
        except XOpsError as error:
            codes.append(error.code if error.todo else f"{error.code} without a next step")
        else:
            codes.append("")
    return codes


def _answer(
    answers: Any, barrier: Any, number: int, task: Callable[..., Any], arguments: Sequence[Any]
) -> None:
    try:
        answers.put((number, task(barrier, number, *arguments)))
    except BaseException:
        barrier.abort()
        answers.put((number, traceback.format_exc()))
