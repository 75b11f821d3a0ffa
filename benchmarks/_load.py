"""Load on a scoring server: a bounded number of keep-alive connections, each asking again when answered.

For the benchmarks and for tests that need a server under load. The generator is a process of its own, so that
it does not share an interpreter with anything it measures. It reads one answer a request, holds it to status
and length, and notes when it was asked, how long it took, its status and the model version it names.

>>> with load("http://127.0.0.1:8080", "/invocations", [b"{}"], seconds=1) as run:  # doctest: +SKIP
...     pass
>>> run.result().failures  # doctest: +SKIP
0

What it does not do: it waits for an answer before it asks again on the same connection (closed loop), so what
a stalled server would have been asked meanwhile is not counted.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import contextlib
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Load", "Result", "Sample", "load", "measure"]

MAX_SECONDS = 600.0
MAX_CONNECTIONS = 256
GRACE_SECONDS = 60.0
_BROKEN = 0


@dataclass(frozen=True)
class Sample:
    """One request.

    :param at: seconds after the epoch when it was sent. :param seconds: until its answer was whole.
    :param status: of the answer; 0: the connection broke. :param version: what ``X-Model-Version`` said.
    """

    at: float
    seconds: float
    status: int
    version: str

    @property
    def failed(self) -> bool:
        return not 200 <= self.status < 300


@dataclass(frozen=True)
class Result:
    """What came of it, without the requests of the warm-up.

    :param seconds: how long was measured.
    """

    samples: tuple[Sample, ...] = field(repr=False)
    seconds: float

    @property
    def requests(self) -> int:
        return len(self.samples)

    @property
    def failures(self) -> int:
        return sum(sample.failed for sample in self.samples)

    @property
    def statuses(self) -> dict[int, int]:
        return dict(collections.Counter(sample.status for sample in self.samples))

    @property
    def versions(self) -> dict[str, int]:
        return dict(collections.Counter(sample.version for sample in self.samples))

    @property
    def rate(self) -> float:
        """Answered requests a second."""
        return (self.requests - self.failures) / self.seconds

    def percentile_ms(self, percent: float, *, between: tuple[float, float] | None = None) -> float:
        """The nearest-rank percentile of the answered requests' milliseconds; NaN where there are none.

        :param between: only requests that were under way at some time in this interval (seconds after the
            epoch).
        """
        begin, end = between or (-math.inf, math.inf)
        times = sorted(
            1000 * each.seconds
            for each in self.samples
            if not each.failed and each.at <= end and each.at + each.seconds >= begin
        )
        return times[max(0, math.ceil(percent / 100 * len(times)) - 1)] if times else math.nan


class Load:
    """A running load."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self._process = process
        self._seconds = seconds
        self._result: Result | None = None

    def result(self) -> Result:
        """Wait for its end.

        :raises RuntimeError: the generator broke.
        """
        if self._result is None:
            assert self._process.stdout is not None
            try:
                output, _ = self._process.communicate(timeout=self._seconds + GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.communicate()
                raise RuntimeError("the load generator did not end") from None
            if self._process.returncode:
                raise RuntimeError(f"the load generator ended with {self._process.returncode}")
            data = json.loads(output)
            self._result = Result(
                samples=tuple(Sample(*each) for each in data["samples"]), seconds=data["seconds"]
            )
        return self._result


@contextlib.contextmanager
def load(
    url: str,
    path: str,
    bodies: Sequence[bytes],
    *,
    connections: int = 4,
    seconds: float = 5.0,
    warmup_seconds: float = 0.5,
    headers: Mapping[str, str] | None = None,
    keys: int = 0,
) -> Iterator[Load]:
    """A load that runs while the block does; ``result()`` waits for it, and the block's end stops it.

    :param bodies: sent in turn, as JSON unless ``headers`` say otherwise.
    :param keys: above 0, request n carries ``X-Request-Key: key-<n modulo keys>``.
    """
    if not 0 < connections <= MAX_CONNECTIONS or not 0 < seconds <= MAX_SECONDS or not bodies:
        raise ValueError(f"1..{MAX_CONNECTIONS} connections, up to {MAX_SECONDS:.0f} s, at least one body")
    order = {
        "url": url, "path": path, "bodies": [base64.b64encode(body).decode() for body in bodies],
        "connections": connections, "seconds": seconds, "warmup": warmup_seconds,
        "headers": dict(headers or {}), "keys": keys,
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks._load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(order).encode())
        process.stdin.close()
        process.stdin = None
        yield Load(process, seconds + warmup_seconds)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def measure(url: str, path: str, bodies: Sequence[bytes], **options: Any) -> Result:
    """A whole load from its begin to its end; the arguments of :func:`load`."""
    with load(url, path, bodies, **options) as running:
        return running.result()


class _Connection(asyncio.Protocol):
    """One connection that asks, reads the answer, and asks again."""

    def __init__(self, work: _Work) -> None:
        self.work = work
        self.transport: asyncio.Transport | None = None
        self.buffer = bytearray()
        self.sent = 0.0
        self.waiting = False
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        assert self.transport is not None
        if time.perf_counter() >= self.work.deadline:
            self.transport.close()
            return
        self.waiting = True
        self.sent = time.perf_counter()
        self.transport.write(self.work.next_request())

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head_end = self.buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = bytes(self.buffer[:head_end]).lower()
        length = _header(head, b"content-length")
        if length is None:
            raise RuntimeError("the answer does not say how long it is")
        whole = head_end + 4 + int(length)
        if len(self.buffer) < whole:
            return
        del self.buffer[:whole]
        self.waiting = False
        version = _header(head, b"x-model-version") or b""
        self.work.note(self.sent, int(head[9:12]), version.decode())
        if _header(head, b"connection") == b"close":
            assert self.transport is not None
            self.transport.close()
            return
        self.ask()

    def connection_lost(self, error: Exception | None) -> None:
        if self.waiting:
            self.work.note(self.sent, _BROKEN, "")
        if not self.end.done():
            self.end.set_result(None)


class _Work:
    """What is to be sent, until when, and what has been seen."""

    def __init__(self, order: dict[str, Any]) -> None:
        parts = urlsplit(order["url"])
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        headers = {"Host": parts.netloc, "Content-Type": "application/json", **order["headers"]}
        head = f"POST {order['path']} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items())
        bodies = [base64.b64decode(body) for body in order["bodies"]]
        self._parts = [(f"{head}Content-Length: {len(body)}\r\n".encode(), body) for body in bodies]
        self._keys = int(order["keys"])
        self._count = 0
        self.connections = int(order["connections"])
        self.begin = time.perf_counter() + order["warmup"]
        self.deadline = self.begin + order["seconds"]
        # One reading of both clocks: durations by the one that never jumps, moments for other processes.
        self._offset = time.time() - time.perf_counter()
        self.samples: list[tuple[float, float, int, str]] = []

    def next_request(self) -> bytes:
        head, body = self._parts[self._count % len(self._parts)]
        key = f"X-Request-Key: key-{self._count % self._keys}\r\n".encode() if self._keys else b""
        self._count += 1
        return head + key + b"\r\n" + body

    def note(self, sent: float, status: int, version: str) -> None:
        if sent >= self.begin:
            self.samples.append((sent + self._offset, time.perf_counter() - sent, status, version))

    async def keep_asking(self) -> None:
        """One connection after the other: a server may close one between two answers."""
        loop = asyncio.get_running_loop()
        while time.perf_counter() < self.deadline:
            try:
                _, connection = await loop.create_connection(lambda: _Connection(self), self.host, self.port)
            except OSError:
                self.note(time.perf_counter(), _BROKEN, "")
                await asyncio.sleep(0.05)
                continue
            await connection.end


def _header(head: bytes, name: bytes) -> bytes | None:
    place = head.find(b"\r\n" + name + b":")
    if place < 0:
        return None
    begin = place + len(name) + 3
    end = head.find(b"\r\n", begin)
    return head[begin : len(head) if end < 0 else end].strip()


async def _run(work: _Work) -> None:
    await asyncio.gather(*(work.keep_asking() for _ in range(work.connections)))


def main() -> int:
    """Read the order from standard input, ask, and print every request as JSON."""
    work = _Work(json.load(sys.stdin))
    asyncio.run(_run(work))
    measured = time.perf_counter() - work.begin
    json.dump({"samples": work.samples, "seconds": measured}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
