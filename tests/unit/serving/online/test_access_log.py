"""One line a request, with nothing in it that a client sent, and nobody waits for who reads it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_xops.serving.online.access_log import AccessLog
from airflow_provider_xops.serving.online.answers import Answer
from airflow_provider_xops.serving.online.auth import Guard
from tests.unit.registry.builders import AS_OF
from tests.unit.serving.online.edge_cases import Desk

KEY, SECRET = "a-key-for-scoring-1", "N328NB"
TENSOR = {"inputs": [{"name": "rows", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]}


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    try:
        yield read, write
    finally:
        for each in (read, write):
            with contextlib.suppress(OSError):
                os.close(each)


def all_of(read: int, write: int) -> bytes:
    """What was written until now, when nobody writes any more."""
    os.close(write)
    with open(read, "rb", closefd=False) as stream:
        return stream.read()


def test_each_request_is_one_line_of_what_the_server_knows() -> None:
    with pipe() as (read, write):
        access = AccessLog(write, clock=lambda: AS_OF)
        desk = Desk(access=access, guard=Guard(environ={"XOPS_SERVE_KEYS": KEY}))
        known = {"X-API-Key": KEY, "X-Request-Key": SECRET, "X-Forwarded-For": SECRET, "User-Agent": SECRET}
        answered = [
            desk.ask("/invocations", {"inputs": [[1, 2], [3, 4], [5, 6]]}, headers=known),
            desk.ask("/v2/models/late/infer", TENSOR, headers=known),
            desk.ask("/invocations", {"inputs": {"a": [SECRET], SECRET: [1]}}, headers=known),
            desk.ask("/models/N328NB/invocations", TENSOR, headers=known),
            desk.ask("/invocations", TENSOR, headers={"X-API-Key": SECRET * 4}),
            desk.ask(f"/{SECRET}", headers=known, query=SECRET),
            desk.ask("/ping", query=SECRET),
            desk.ask("/ping", method="HEAD"),
            desk.ask("/v2/models/late/versions/7", headers=known),
        ]
        access.close(20)
        text = all_of(read, write)
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["status"] for line in lines] == [each.status for each in answered]
    assert [(line["route"], line["rows"], line["model"], line["version"]) for line in lines] == [
        ("/invocations", 3, "late", 1), ("/v2/models/{model}/infer", 1, "late", 1),
        ("/invocations", None, "late", 1), ("/models/{model}/invocations", None, None, None),
        ("/invocations", None, None, None), ("other", None, None, None), ("/ping", None, None, None),
        ("/ping", None, None, None), ("/v2/models/{model}/versions/{version}", None, None, None),
    ]  # fmt: skip
    assert [line["prediction_id"] for line in lines] == [
        each.headers.get("x-prediction-id") for each in answered
    ]
    assert len({line["prediction_id"] for line in lines}) == 3
    assert all(line["ms"] > 0 and line["time"] == lines[0]["time"] for line in lines)
    assert lines[0]["time"].startswith(AS_OF.strftime("%Y-%m-%dT%H:%M:%S"))
    assert lines[0]["variant"] == "primary"
    assert all(each.encode() not in text for each in (SECRET, KEY))


def test_a_reader_that_does_not_read_costs_lines_and_no_time() -> None:
    with pipe() as (read, write):
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
        access = AccessLog(write, clock=lambda: AS_OF, most=50)
        answer = Answer(200, b"", (), "late", "1", "primary", 3)
        writing = access._thread
        noted = 0
        # Enough that the writer waits in the middle of a line: then nothing leaves the queue.
        for _ in range(200):
            access.note("/invocations", answer, 0.001)
            noted += 1
            writing.join(0.005)
        assert access._dropped > 0
        access.close(0.1)
        assert writing.is_alive()
        found = bytearray()
        reading = threading.Thread(target=lambda: _until_closed(read, found))
        reading.start()
        writing.join(20)
        assert not writing.is_alive()
        os.close(write)
        reading.join(20)
    lines = [json.loads(line) for line in found.splitlines()]
    dropped = sum(line.get("lines_dropped", 0) for line in lines)
    assert 0 < dropped < noted
    assert sum("route" in line for line in lines) + dropped == noted


def _until_closed(read: int, found: bytearray) -> None:
    while chunk := os.read(read, 65536):
        found.extend(chunk)


def test_nobody_who_reads_is_nothing_to_stop_for(caplog: pytest.LogCaptureFixture) -> None:
    with pipe() as (read, write), caplog.at_level(logging.WARNING):
        os.close(read)
        access = AccessLog(write, clock=lambda: AS_OF)
        desk = Desk(access=access)
        replies: list[Any] = [desk.ask("/invocations", {"inputs": [[1, 2]]})]
        access._thread.join(20)
        assert not access._thread.is_alive()
        replies.append(desk.ask("/invocations", {"inputs": [[1, 2]]}))
        access.close(1)
    assert [each.status for each in replies] == [200, 200]
    assert [each.message for each in caplog.records] == [
        "The access log cannot be written (BrokenPipeError)."
    ]
