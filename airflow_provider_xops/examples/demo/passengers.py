"""Requests that never stop: what an app would ask the scoring server while models come and go behind it.

For the demo. It keeps one connection, asks about the same flights again and again, and counts which model
version answered and how many requests failed.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from typing import Any

__all__ = ["Passengers"]

TIMEOUT_S = 10.0


class Passengers:
    """Asks the server at ``port`` until told to stop.

    :param body: a request in MLflow's format.
    :param pause: seconds between an answer and the next request.
    """

    def __init__(self, port: int, body: bytes, *, pause: float = 0.2) -> None:
        self.port = port
        self.body = body
        self.pause = pause
        self.answers: Counter[int] = Counter()
        self.failed = 0
        self.last_version: int | None = None
        self.last_prediction: str | None = None
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask_on, name="passengers", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def wait_for(self, version: int, *, timeout_s: float) -> bool:
        """Whether this version answers before the time is up."""
        with self._changed:
            return self._changed.wait_for(lambda: self.last_version == version, timeout_s)

    def stop(self) -> dict[str, Any]:
        """Stop; what was asked and answered."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(TIMEOUT_S + self.pause)
        return {
            "requests": sum(self.answers.values()) + self.failed,
            "failed": self.failed,
            "by_version": {str(version): count for version, count in sorted(self.answers.items())},
            "last_version": self.last_version,
            "last_prediction": self.last_prediction,
        }

    def _ask_on(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._stop.wait(self.pause):
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
                connection.request("POST", "/invocations", self.body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                content = response.read()
                if response.status != 200 or not json.loads(content)["predictions"]:
                    raise http.client.HTTPException(f"status {response.status}")
                version = int(response.headers["X-Model-Version"])
            except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
                self.failed += 1
                if connection is not None:
                    connection.close()
                connection = None
                continue
            with self._changed:
                self.answers[version] += 1
                self.last_version = version
                self.last_prediction = response.headers.get("X-Prediction-Id")
                self._changed.notify_all()
