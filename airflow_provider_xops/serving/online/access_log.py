"""One line of JSON a request, for people who want to see each of them.

For the edge, where ``xops serve --access-log`` asks for it. A line holds what the server knows and nothing
that a client sent: no value, no key, no path but the route as it was declared.

Lines are written by a thread of their own, a few times a second, so that no request waits for who reads them.
Of a reader that is too slow a bounded number waits; what comes on top is dropped, and how many that were is
told in a line of its own as soon as there is room again.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from datetime import datetime

import orjson

from airflow_provider_xops.serving.online.answers import Answer

__all__ = ["AccessLog"]

log = logging.getLogger(__name__)

WAITING_LINES = 10_000
WRITTEN_EVERY_S = 0.2
_ID = b"x-prediction-id"


class AccessLog:
    """Writes lines to a file until it is closed.

    :param descriptor: of the open file; it stays open at the end.
    :param clock: gives the time (aware, UTC).
    :param most: lines that may wait.

    >>> access = AccessLog(1, clock=utc_now)  # doctest: +SKIP
    >>> access.note("/invocations", answer, 0.0042, model="late")  # doctest: +SKIP
    {"time":"2013-01-01T10:00:00.000000Z","route":"/invocations","status":200,"model":"late","version":3,
     "variant":"primary","rows":2,"ms":4.2,"prediction_id":"5f0c...-17"}

    What it does not do: it rotates nothing; and of a process that is killed the lines of the last fifth of a
    second are lost.
    """

    def __init__(self, descriptor: int, *, clock: Callable[[], datetime], most: int = WAITING_LINES) -> None:
        # Not the stream over it: a writer that waits would keep the lock that the process's end needs.
        self._descriptor = descriptor
        self._clock = clock
        self._most = most
        self._lines: list[bytes] = []
        self._dropped = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write, name="xops-access-log", daemon=True)
        self._thread.start()

    def note(self, route: str, answer: Answer, seconds: float, *, model: str = "") -> None:
        """One answered request; it waits for nothing.

        :param route: as it was declared. :param seconds: from the whole headers to the answer.
        :param model: what was asked for, where that is known.
        """
        first = next((value.decode() for name, value in answer.headers if name == _ID), None)
        line = self._line(
            route=route,
            status=answer.status,
            model=model or None,
            version=int(answer.version) if answer.version else None,
            variant=answer.variant or None,
            rows=answer.rows or None,
            ms=round(1000 * seconds, 3),
            prediction_id=first,
        )
        with self._lock:
            if len(self._lines) < self._most:
                self._lines.append(line)
            else:
                self._dropped += 1

    def close(self, timeout: float) -> None:
        """Write what waits, for so many seconds at most."""
        self._ended.set()
        self._thread.join(timeout)

    def _line(self, **content: object) -> bytes:
        options = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE
        return orjson.dumps({"time": self._clock(), **content}, option=options)

    def _write(self) -> None:
        ended = False
        while not ended:
            ended = self._ended.wait(WRITTEN_EVERY_S)
            with self._lock:
                lines, self._lines = self._lines, []
                dropped, self._dropped = self._dropped, 0
            if dropped:
                lines.append(self._line(lines_dropped=dropped))
            waiting = memoryview(b"".join(lines))
            try:
                while waiting:
                    waiting = waiting[os.write(self._descriptor, waiting) :]
            except OSError as error:
                # Nobody reads any more. Serving goes on, and what is noted from now on is dropped.
                log.warning("The access log cannot be written (%s).", type(error).__name__)
                return
