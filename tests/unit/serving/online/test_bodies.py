"""How many bytes of requests are in memory at a time, whatever way a request ends."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from typing import Any

import pytest

from airflow_provider_xops.serving.online.limits import Limits
from tests.unit.serving.online.edge_cases import Desk
from tests.unit.serving.online.test_edge import held, metric

MIB = 1024 * 1024
ROWS = {"inputs": [[1, 2]]}
TENSOR = {"inputs": [{"name": "rows", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]}


def padded(size: int, content: Any = ROWS) -> bytes:
    return json.dumps(content).encode().ljust(size)


def in_memory(desk: Desk) -> float:
    return metric(desk, "xops_body_bytes")[""]


def test_no_more_bytes_are_held_than_the_server_may() -> None:
    desk = Desk(limits=Limits(threads=1, queue=10, body_bytes=1000, bodies_bytes=1500))
    begun, go = held(desk)

    async def story() -> list[Any]:
        first = asyncio.create_task(desk.asked("/invocations", padded(1000)))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        refused = [
            await desk.asked("/invocations", padded(501)),
            await desk.asked("/v2/models/late/infer", chunks=[b" " * 300, b" " * 300]),
        ]
        small = asyncio.create_task(desk.asked("/invocations", padded(500)))
        while desk.workers.inflight < 2:
            await asyncio.sleep(0.01)
        full = await desk.asked("/invocations", padded(30))
        told = await desk.asked("/metrics")
        go.set()
        return [*refused, full, told, await first, await small]

    *refused, told, first, small = asyncio.run(story())
    for each in refused:
        assert (each.status, each.json["code"], each.headers["retry-after"]) == (429, "limit.bodies", "1")
    assert b"xops_body_bytes 1500.0" in told.body
    assert (first.status, small.status) == (200, 200)
    assert in_memory(desk) == 0
    # What was refused has not been asked about.
    assert len(desk.estimator.frames) == 2


def test_who_announces_much_and_sends_nothing_keeps_nobody_from_being_answered() -> None:
    desk = Desk(limits=Limits(threads=1, body_bytes=1000, bodies_bytes=1000))
    waiting = asyncio.Event()

    async def receive() -> Any:
        waiting.set()
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        raise AssertionError

    async def story() -> Any:
        scope = {
            "type": "http", "path": "/invocations", "method": "POST", "query_string": b"",
            "headers": [(b"content-length", b"1000")],
        }  # fmt: skip
        silent = asyncio.create_task(desk.app(scope, receive, send))
        await waiting.wait()
        answer = await desk.asked("/invocations", padded(1000))
        silent.cancel()
        return answer

    assert asyncio.run(story()).status == 200


def test_bytes_of_a_request_that_took_too_long_are_counted_until_the_model_lets_go_of_them() -> None:
    desk = Desk(limits=Limits(threads=1, request_seconds=0.1))
    begun, go = held(desk)

    async def story() -> tuple[int, int, bytes]:
        late = asyncio.create_task(desk.asked("/invocations", padded(700)))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        never_begun = await desk.asked("/invocations", padded(800))
        stuck = await desk.asked("/metrics")
        go.set()
        while desk.workers.inflight:
            await asyncio.sleep(0.01)
        return (await late).status, never_begun.status, stuck.body

    late, never_begun, stuck = asyncio.run(story())
    assert (late, never_begun) == (504, 503)
    # The thread that is busy has not seen yet that nobody waits for the second.
    assert b"xops_body_bytes 1500.0" in stuck
    assert in_memory(desk) == 0


def test_however_a_request_ends_its_bytes_are_given_back() -> None:
    desk = Desk(limits=Limits(threads=1, queue=0, body_bytes=1000, body_seconds=0.05))
    seen = [
        desk.ask("/invocations", padded(900)),
        desk.ask("/invocations", b"x" * 900),
        desk.ask("/invocations", chunks=[b"x" * 600, b"x" * 600]),
        desk.ask("/invocations", chunks=[b"x" * 600], gone=True),
        desk.ask("/v2/models/late/versions/7/infer", padded(900, TENSOR)),
        desk.ask("/v2/models/late/versions/x/infer", padded(900)),
        desk.ask("/nowhere", padded(900)),
    ]
    assert [each.status for each in seen] == [200, 400, 413, 0, 404, 404, 404]
    assert in_memory(desk) == 0
    desk.estimator.raises = RuntimeError("no")
    assert desk.ask("/invocations", padded(900)).status == 500
    assert in_memory(desk) == 0
    begun, go = held(desk)
    desk.estimator.raises = None

    async def story() -> list[Any]:
        first = asyncio.create_task(desk.asked("/invocations", padded(100)))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        refused = await desk.asked("/invocations", padded(900))
        told = await desk.asked("/metrics")
        go.set()
        return [refused, told, await first]

    refused, told, _ = asyncio.run(story())
    assert (refused.status, refused.json["code"]) == (429, "limit.concurrency")
    assert b"xops_body_bytes 100.0" in told.body
    assert in_memory(desk) == 0


@pytest.mark.parametrize(("content", "status"), [(ROWS, 200), ({"inputs": "x"}, 400)])
def test_while_a_client_takes_its_answer_what_it_sent_is_gone(content: Any, status: int) -> None:
    desk = Desk()
    assert desk.ask("/invocations", content).status == status
    body = padded(100, content)
    taken: list[tuple[int, int]] = []

    async def story() -> None:
        pieces = iter([(body, True), *[(b"", True)] * 3])

        async def receive() -> Any:
            piece, more = next(pieces, (b"", False))
            # Made anew for each, so that nobody but the server has it.
            return {"type": "http.request", "body": piece + b" " * 2 * MIB, "more_body": more}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                # The thread tells of its end, and then lets go of the work.
                await asyncio.sleep(0.2)
                taken.append((message["status"], tracemalloc.get_traced_memory()[0]))

        scope = {"type": "http", "path": "/invocations", "method": "POST", "headers": [], "query_string": b""}
        await desk.app({**scope, "headers": [(b"content-type", b"application/json")]}, receive, send)

    async def limited() -> None:
        desk.site.limits = Limits(threads=1, body_bytes=20 * MIB)
        await story()

    tracemalloc.start()
    try:
        asyncio.run(limited())
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [each[0] for each in taken] == [status]
    assert most > 10 * MIB
    assert taken[0][1] < 2 * MIB
