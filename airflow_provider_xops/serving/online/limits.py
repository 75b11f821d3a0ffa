"""Bounds on what one client, or all of them, can make the server do.

For the edge. :class:`Limits` are the figures; :func:`read_body` takes no more bytes than allowed, however
they come; :class:`Workers` runs a bounded number of requests at a time, lets a bounded number wait, refuses
the rest at once, and stops waiting for one that takes too long.

What it does not do: a thread of Python cannot be killed. A request that is answered with 504 goes on in its
thread, and its place stays taken until it ends. A model that hangs takes its places away for good; the gauge
``xops_stuck_requests`` shows it, and only a restart gives them back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.serving.online.answers import Refusal

__all__ = ["ClientGone", "Limits", "Workers", "read_body", "throw_away"]

log = logging.getLogger(__name__)

T = TypeVar("T")
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
MIB = 1024 * 1024
# What is still coming of a refused request is read for so long, and then no more.
LINGER_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The bounds of one server.

    :param body_bytes: of one request. :param rows: of one request.
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
        least = {"queue": 0, "drain_seconds": 0}
        for name, value in vars(self).items():
            if value < least.get(name, 1 if isinstance(value, int) else 0.01):
                raise ArgumentError(
                    f"the limit {name.replace('_', ' ')} is too small",
                    code="argument.limit",
                    todo=f"leave it out for {getattr(type(self), name)}",
                )


class ClientGone(Exception):
    """The client closed its connection before its request was whole."""


async def read_body(receive: Receive, *, declared: int | None, limits: Limits) -> bytes:
    """The body of a request, whatever way it is sent.

    :param declared: what ``Content-Length`` says; None: nothing.
    :raises Refusal: 413 as soon as there are too many bytes, 408 when they come too slowly.
    :raises ClientGone: the connection is closed.
    """
    if declared is not None and declared > limits.body_bytes:
        raise _too_large(limits)
    message = await _next(receive, limits)
    body = message.get("body", b"")
    if not message.get("more_body", False) and len(body) <= limits.body_bytes:
        return bytes(body)
    chunks, size = [body], len(body)
    try:
        async with asyncio.timeout(limits.body_seconds):
            while message.get("more_body", False):
                if size > limits.body_bytes:
                    break
                message = await _next(receive, limits)
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
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

    def run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """The result of ``work``, done in one of the threads.

        :raises Refusal: 429 at once when the queue is full. The future raises 503 when no thread was free
            within ``request_seconds``, 504 when the work was begun and has not ended.
        """
        if self.inflight >= self.limits.threads + self.limits.queue:
            raise Refusal(
                429,
                "limit.concurrency",
                "the server is busy: its queue is full; try again later",
                headers={"Retry-After": "1"},
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        job = _Job(self, work, future, loop)
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

    __slots__ = ("_begun", "_future", "_lock", "_loop", "_work", "_workers", "expired", "timer")

    def __init__(
        self,
        workers: Workers,
        work: Callable[[], T],
        future: asyncio.Future[T],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._workers = workers
        self._work = work
        self._future = future
        self._loop = loop
        self._lock = threading.Lock()
        self._begun = False
        self.expired = False
        self.timer: asyncio.TimerHandle | None = None

    def run(self) -> None:
        """In the worker's thread."""
        with self._lock:
            # Nobody waits any more (too late, or the client has gone): the place is free at once.
            if self.expired or self._future.cancelled():
                self._loop.call_soon_threadsafe(self._end, None, None)
                return
            self._begun = True
        try:
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
            if self._future.done():
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
        self._future.set_exception(refusal)

    def _tell(self, result: T | None, error: BaseException | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._end, result, error)
        except RuntimeError:
            log.debug("A request ended after the server.")

    def _end(self, result: Any, error: BaseException | None) -> None:
        self._workers.inflight -= 1
        if self.timer is not None:
            self.timer.cancel()
        if self.expired and self._begun:
            self._workers.stuck -= 1
        if self._future.done():
            return
        if error is not None:
            self._future.set_exception(error)
        else:
            self._future.set_result(result)


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
