"""Real connections to the application: requests in pieces, too many, and answers nobody takes."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

from airflow_provider_xops.serving.online import process
from airflow_provider_xops.serving.online._connections import MOST_QUEUED
from airflow_provider_xops.serving.online.auth import Guard
from airflow_provider_xops.serving.online.limits import Limits
from tests.unit.serving.online.edge_cases import Desk
from tests.unit.serving.online.test_edge import held

Story = Callable[[uvicorn.Server, int], Awaitable[Any]]
PING = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"


def request(path: str, body: bytes, *, more: bytes = b"") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n".encode()
    return head + more + b"\r\n" + body


def live(desk: Desk, story: Story) -> Any:
    """What a story finds out about a server that listens."""
    server = uvicorn.Server(process._config(desk.site, desk.workers, None))
    listening = process.listen("127.0.0.1", 0)

    async def told() -> Any:
        running = asyncio.create_task(server._serve([listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            return await story(server, listening.getsockname()[1])
        finally:
            server.should_exit = True
            await running

    return asyncio.run(asyncio.wait_for(told(), 60))


async def said(port: int, content: bytes) -> bytes:
    """Everything a server answers to these bytes, until it closes; raises where it resets the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(content)
    await writer.drain()
    answer = await reader.read()
    writer.close()
    return answer


def test_a_refused_request_is_answered_once_however_large_its_body() -> None:
    desk = Desk(guard=Guard(environ={"XOPS_SERVE_KEYS": "a-key-for-scoring-1"}))
    body = b" " * 2_000_000
    last = b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    async def story(_: Any, port: int) -> list[bytes]:
        return [await said(port, request(path, body) + last) for path in ("/invocations", "/xops/refresh")]

    for answer in live(desk, story):
        assert answer.startswith(b"HTTP/1.1 401")
        # The next request on the connection is found where the body ends.
        assert b"HTTP/1.1 200" in answer
        assert answer.count(b"HTTP/1.1") == 2


def test_too_large_a_body_is_refused_by_an_answer_and_not_by_a_reset() -> None:
    desk = Desk(limits=Limits(threads=1, body_bytes=100_000))

    async def story(_: Any, port: int) -> bytes:
        return await said(port, request("/invocations", b" " * 700_000))

    answer = live(desk, story)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"\r\nconnection: close\r\n" in answer


def test_a_client_that_only_announced_its_body_is_not_kept_after_a_refusal() -> None:
    # What comes next on such a connection could be the body as well as another request.
    desk = Desk(limits=Limits(threads=1, body_seconds=0.2))
    content = request("/models/nobody/invocations", b"", more=b"Expect: 100-continue\r\n").replace(
        b"Content-Length: 0", b"Content-Length: 50"
    )

    async def story(_: Any, port: int) -> bytes:
        return await said(port, content)

    answer = live(desk, story)
    assert answer.startswith(b"HTTP/1.1 404")
    assert answer.count(b"HTTP/1.1") == 1
    assert b"\r\nconnection: close\r\n" in answer


def test_few_requests_may_be_sent_ahead_and_are_answered_in_order() -> None:
    desk = Desk()
    bodies = [json.dumps({"inputs": [[sign, 0]]}).encode() for sign in (1, -1) * (MOST_QUEUED // 2)]
    ahead = b"".join(request("/invocations", body) for body in bodies)

    async def story(_: Any, port: int) -> bytes:
        return await said(port, ahead + PING.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))

    answers = live(desk, story).split(b"HTTP/1.1 ")[1:-1]
    assert [answer[-19:] for answer in answers] == [
        b'{"predictions":[1]}', b'{"predictions":[0]}'
    ] * (MOST_QUEUED // 2)  # fmt: skip


def test_requests_sent_ahead_without_end_are_not_kept() -> None:
    desk = Desk()

    async def story(_: Any, port: int) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for _ in range(20):
                writer.write(PING * 5_000)
                await writer.drain()
                while await asyncio.wait_for(reader.read(1_000_000), 0.2):
                    pass
        except (ConnectionError, TimeoutError) as error:
            return isinstance(error, ConnectionError)
        finally:
            writer.close()
        return True

    assert live(desk, story)


def test_what_is_no_request_is_not_answered_in_place_of_an_earlier_one() -> None:
    desk = Desk(limits=Limits(threads=1, header_bytes=1_000))
    begun, go_on = held(desk)
    body = json.dumps({"inputs": [[1, 2]]}).encode()

    async def story(_: Any, port: int) -> list[bytes]:
        answers = []
        for wrong in (b"\x00\x01\r\n\r\n", b"GET /ping HTTP/1.1\r\nX-A: " + b"a" * 70_000):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request("/invocations", body))
            await asyncio.to_thread(begun.wait, 20)
            writer.write(wrong)
            try:
                answers.append(await asyncio.wait_for(reader.read(), 20))
            except ConnectionError:
                answers.append(b"")
            writer.close()
        go_on.set()
        return answers

    assert live(desk, story) == [b"", b""]


def test_trailers_without_end_end_the_connection() -> None:
    desk = Desk(limits=Limits(threads=1, body_bytes=10_000, header_bytes=1_000))
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: "

    async def story(_: Any, port: int) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(head)
            for _ in range(100):
                writer.write(b"a" * 10_000)
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            return True
        finally:
            writer.close()
        return await reader.read() == b""

    assert live(desk, story)


def test_a_client_that_takes_no_answers_is_given_up() -> None:
    desk = Desk(limits=Limits(threads=1, idle_seconds=1.0))
    rows = {"name": "rows", "shape": [5_000, 2], "datatype": "FP64", "data": [1.0] * 10_000}
    content = request("/v2/models/late/infer", json.dumps({"inputs": [rows]}).encode())

    async def story(server: uvicorn.Server, port: int) -> tuple[int, int]:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(deaf, ("127.0.0.1", port))
            try:
                for _ in range(100):
                    await asyncio.wait_for(loop.sock_sendall(deaf, content), 0.5)
            except (TimeoutError, ConnectionError):
                pass
            most = len(server.server_state.connections)
            for _ in range(200):
                if not server.server_state.connections:
                    break
                await asyncio.sleep(0.05)
            return most, len(server.server_state.connections)

    assert live(desk, story)[1] == 0


def test_head_is_answered_like_get_but_without_the_content() -> None:
    paths = [
        "/ping", "/health", "/version", "/v2/health/live", "/v2/health/ready", "/v2/models/late/ready",
        "/v2/models/late", "/nowhere", "/invocations",
    ]  # fmt: skip

    def ask(method: str) -> bytes:
        asked = "".join(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n" for path in paths)
        # The last one shows that the connection is where the server believes it to be.
        return asked.encode() + PING.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")

    async def story(_: Any, port: int) -> list[bytes]:
        return [await said(port, ask(method)) for method in ("HEAD", "GET")]

    for ready in (True, False):
        heads, answers = (
            [each.split(b"\r\n\r\n", 1) for each in answer.split(b"HTTP/1.1 ")[1:]]
            for answer in live(Desk(ready=ready), story)
        )
        assert len(heads) == len(answers) == len(paths) + 1
        assert [head for head, _ in heads] == [head for head, _ in answers]
        assert not any(content for _, content in heads[:-1])
        assert all(content for _, content in [heads[-1], *answers])
        assert heads[0][0].startswith(b"200" if ready else b"503")
        assert b"\r\nallow: POST" in heads[-2][0]
