"""Bounds on what one client, or all of them, can make the server do.

For the edge. :class:`Limits` are the figures; :func:`read_body` takes no more bytes than allowed, however
they come, and :class:`Bodies` no more of all requests together; :class:`Workers` runs a bounded number of
requests at a time, lets a bounded number wait, refuses the rest at once, and stops waiting for one that takes
too long.

What it does not do: a thread of Python cannot be killed. A request that is answered with 504 goes on in its
thread, and its place stays taken until it ends. A model that hangs takes its places away for good; the gauge
``xops_stuck_requests`` shows it, and only a restart gives them back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.serving.online.answers import Refusal

__all__ = ["Bodies", "ClientGone", "Held", "Limits", "Workers", "read_body", "throw_away"]

log = logging.getLogger(__name__)

T = TypeVar("T")
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
MIB = 1024 * 1024
# What is still coming of a refused request is read for so long, and then no more.
LINGER_S = 5.0
BODIES_BYTES = 256 * MIB


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The bounds of one server.

    :param body_bytes: of one request. :param rows: of one request.
    :param bodies_bytes: of all requests together, from the arrival of a body's first bytes until its
        prediction has ended; default: 256 MiB, or four of the largest bodies where that is more. A request
        whose bytes would be too many is answered with 429.
    :param threads: requests that are worked on at a time; default: the processors, at most 4.
    :param queue: requests that may wait for a thread; one more is answered with 429.
    :param request_seconds: from the whole request to its answer; then 503 if it still waited, else 504.
    :param body_seconds: for the body of a request to arrive; ``header_seconds`` for its headers.
    :param header_bytes: of one request's headers together.
    :param connections: open at a time; a request on one more is answered with 503.
    :param idle_seconds: until a connection without a request is closed, or one whose client does not take
        what it was answered.
    :param drain_seconds: after SIGTERM, how long requests are still taken while the server says that it is
        not ready, for a load balancer to notice. :param shutdown_seconds: then, for requests under way to be
        answered, and as long again for the prediction log to be written.
    :raises ArgumentError: ``argument.limit``.
    """

    body_bytes: int = 8 * MIB
    bodies_bytes: int = 0
    rows: int = 10_000
    threads: int = 0
    queue: int = 64
    request_seconds: float = 30.0
    body_seconds: float = 20.0
    header_seconds: float = 10.0
    header_bytes: int = 64 * 1024
    connections: int = 1_000
    idle_seconds: float = 75.0
    drain_seconds: float = 0.0
    shutdown_seconds: float = 20.0

    def __post_init__(self) -> None:
        if self.threads == 0:
            object.__setattr__(self, "threads", min(4, len(os.sched_getaffinity(0))))
        if self.bodies_bytes == 0:
            object.__setattr__(self, "bodies_bytes", max(BODIES_BYTES, 4 * self.body_bytes))
        least = {"queue": 0, "drain_seconds": 0, "bodies_bytes": self.body_bytes}
        for name, value in vars(self).items():
            lowest = least.get(name, 1 if isinstance(value, int) else 0.01)
            if not lowest <= value < math.inf:
                raise ArgumentError(
                    f"the limit {name.replace('_', ' ')} is too small, or no finite number",
                    code="argument.limit",
                    todo=f"give at least {lowest:g}, or leave it out",
                )


class ClientGone(Exception):
    """The client closed its connection before its request was whole."""


class Bodies:
    """How many bytes of requests' bodies are in memory, of all connections together.

    :param most: at a time.

    All methods, and those of :class:`Held`, are called in the event loop's thread.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.bytes = 0

    def hold(self) -> Held:
        """Room for one request's body; it grows as the bytes come."""
        return Held(self)


class Held:
    """One request's part of what is held."""

    __slots__ = ("_bodies", "_bytes")

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._bytes = 0

    def expect(self, size: int) -> None:
        """See whether there is room for so many bytes now; none of it is taken.

        A client that announces much and sends nothing must not keep others from being answered.

        :raises Refusal: 429.
        """
        if self._bodies.bytes + size > self._bodies.most:
            raise Refusal(
                429,
                "limit.bodies",
                "the server is busy: it holds as many bytes of requests as it may; try again later",
                headers={"Retry-After": "1"},
            )

    def take(self, size: int) -> None:
        """Room for bytes that have come.

        :raises Refusal: 429.
        """
        self.expect(size)
        self._bytes += size
        self._bodies.bytes += size

    def release(self) -> None:
        """The bytes are not in memory any more; a second time does nothing."""
        self._bodies.bytes -= self._bytes
        self._bytes = 0


async def read_body(receive: Receive, *, declared: int | None, limits: Limits, held: Held) -> bytes:
    """The body of a request, whatever way it is sent.

    :param declared: what ``Content-Length`` says; None: nothing.
    :param held: takes room for what comes; the caller releases it when the body is gone.
    :raises Refusal: 413 as soon as there are too many bytes, 429 when there is no room for them, 408 when
        they come too slowly.
    :raises ClientGone: the connection is closed.
    """
    if declared is not None:
        if declared > limits.body_bytes:
            raise _too_large(limits)
        held.expect(declared)
    message = await _next(receive, limits)
    body = message.get("body", b"")
    if len(body) <= limits.body_bytes:
        held.take(len(body))
        if not message.get("more_body", False):
            return bytes(body)
    chunks, size = [body], len(body)
    try:
        async with asyncio.timeout(limits.body_seconds):
            while message.get("more_body", False):
                if size > limits.body_bytes:
                    break
                message = await _next(receive, limits)
                chunk = message.get("body", b"")
                held.take(len(chunk))
                chunks.append(chunk)
                size += len(chunk)
    except TimeoutError:
        raise _too_slow(limits) from None
    if size > limits.body_bytes:
        raise _too_large(limits)
    return b"".join(chunks)


async def throw_away(receive: Receive, limits: Limits) -> None:
    """Read what is still coming of an answered request, and keep nothing of it.

    A connection that is closed while its client sends is reset, and the client may never see its answer.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(min(LINGER_S, limits.body_seconds)):
            while (await receive()).get("more_body", False):
                pass


class Workers:
    """Threads that work on requests: so many at a time, so many waiting, no more.

    :param prepare: called once in each thread before its first request.

    All methods are called in the event loop's thread.
    """

    def __init__(self, limits: Limits, prepare: Callable[[], None] | None = None) -> None:
        self.limits = limits
        self.inflight = 0
        self.stuck = 0
        self._pool = ThreadPoolExecutor(
            limits.threads, thread_name_prefix="xops-predict", initializer=prepare
        )

    def run(self, work: Callable[[], T], ended: Callable[[], None] | None = None) -> asyncio.Future[T]:
        """The result of ``work``, done in one of the threads.

        :param ended: called when the thread has let go of the work, which may be long after the future's end;
            at once where the work is refused.
        :raises Refusal: 429 at once when the queue is full. The future raises 503 when no thread was free
            within ``request_seconds``, 504 when the work was begun and has not ended.
        """
        if self.inflight >= self.limits.threads + self.limits.queue:
            if ended is not None:
                ended()
            raise Refusal(
                429,
                "limit.concurrency",
                "the server is busy: its queue is full; try again later",
                headers={"Retry-After": "1"},
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        job = _Job(self, work, ended, future, loop)
        self.inflight += 1
        job.timer = loop.call_later(self.limits.request_seconds, job.expire)
        self._pool.submit(job.run)
        return future

    def close(self) -> bool:
        """Take no more work; whether every thread has ended its own."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        return self.inflight == 0


class _Job(Generic[T]):
    """One request's work, from the queue to its end."""

    __slots__ = ("_begun", "_ended", "_future", "_lock", "_loop", "_work", "_workers", "expired", "timer")

    def __init__(
        self,
        workers: Workers,
        work: Callable[[], T],
        ended: Callable[[], None] | None,
        future: asyncio.Future[T],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._workers = workers
        self._work: Callable[[], T] | None = work
        self._ended = ended
        self._future: asyncio.Future[T] | None = future
        self._loop = loop
        self._lock = threading.Lock()
        self._begun = False
        self.expired = False
        self.timer: asyncio.TimerHandle | None = None

    def run(self) -> None:
        """In the worker's thread."""
        with self._lock:
            # Nobody waits any more (too late, or the client has gone): the place is free at once.
            if self.expired or self._future is None or self._future.cancelled():
                self._loop.call_soon_threadsafe(self._end, None, None)
                return
            self._begun = True
        try:
            assert self._work is not None
            result = self._work()
        except Exception as error:
            self._tell(None, error)
        except BaseException as error:
            # A model that asks for the end of the process gets the end of its request.
            self._tell(None, RuntimeError(type(error).__name__))
        else:
            self._tell(result, None)

    def expire(self) -> None:
        """In the loop's thread, when the time is over."""
        with self._lock:
            future = self._future
            if future is None or future.done():
                return
            self.expired = True
            begun = self._begun
        if begun:
            self._workers.stuck += 1
            refusal = Refusal(504, "limit.time", "the model has not answered in time")
        else:
            refusal = Refusal(
                503, "limit.time", "no thread was free in time; try again later", headers={"Retry-After": "1"}
            )
        future.set_exception(refusal)

    def _tell(self, result: T | None, error: BaseException | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._end, result, error)
        except RuntimeError:
            log.debug("A request ended after the server.")

    def _end(self, result: Any, error: BaseException | None) -> None:
        self._workers.inflight -= 1
        # With it goes the body. An error has frames that lead here: with the future it would be a cycle, and
        # keep the body until Python's collector comes by.
        future, self._future, self._work = self._future, None, None
        if self._ended is not None:
            self._ended()
        if self.timer is not None:
            self.timer.cancel()
        if self.expired and self._begun:
            self._workers.stuck -= 1
        if future is None or future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)


async def _next(receive: Receive, limits: Limits) -> MutableMapping[str, Any]:
    try:
        async with asyncio.timeout(limits.body_seconds):
            message = await receive()
    except TimeoutError:
        raise _too_slow(limits) from None
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message


def _too_large(limits: Limits) -> Refusal:
    return Refusal(
        413,
        "limit.body",
        f"the request is larger than {limits.body_bytes} bytes: send fewer rows at a time",
        # What is still under way is not read: the connection is of no more use.
        headers={"Connection": "close"},
    )


def _too_slow(limits: Limits) -> Refusal:
    return Refusal(
        408,
        "limit.body_time",
        f"the request's body did not arrive within {limits.body_seconds:g} s",
        headers={"Connection": "close"},
    )
