"""Requests to a scoring server, and what its answers are held against.

For the smoke test. Rows of a feature frame become MLflow's ``dataframe_split``, exact to the last digit; the
answers are compared with what was recorded at training. Bodies of answers are never shown: MLflow's own error
texts quote the rows.
"""

from __future__ import annotations

import http.client
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from airflow_provider_xops.records import GoldenPredictions
from airflow_provider_xops.training._apart import apart
from airflow_provider_xops.training.metrics import Task

__all__ = ["Answer", "Client", "Compared", "TimeUp", "as_request", "compare_labels", "compare_scores"]

INVOCATIONS = "/invocations"
PROBABILITIES = "/probabilities/invocations"


class TimeUp(Exception):
    """The server has not answered within the time that the whole test has."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a server said: the HTTP status, its predictions (None where it gave none), and the seconds."""

    status: int
    predictions: list[Any] | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Answers against the record: how many rows differ, and by how much at most.

    :param apart: the largest distance (:func:`~airflow_provider_xops.training._apart.apart`); None: an answer
        is no number.
    :param exact: whether no difference is small enough: a class is the recorded one, or is not.
    """

    different: int
    apart: float | None
    exact: bool = False

    def within(self, tolerance: float) -> bool:
        """Whether these are the recorded answers."""
        if self.exact:
            return self.different == 0
        return self.apart is not None and self.apart <= tolerance


class Client:
    """One kept connection to a server on this machine.

    :param deadline: the moment of ``time.monotonic()`` at which the test's time is over.
    """

    def __init__(self, port: int, *, deadline: float) -> None:
        self.port = port
        self.deadline = deadline
        self._connection: http.client.HTTPConnection | None = None

    def post(self, path: str, body: bytes) -> Answer:
        """Send one request.

        :raises TimeUp: no answer came in time. :raises OSError: the server is gone.
        """
        connection = self._connected()
        begin = time.perf_counter()
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
        except TimeoutError:
            self.close()
            raise TimeUp from None
        except (http.client.HTTPException, OSError) as error:
            self.close()
            raise ConnectionError(type(error).__name__) from None
        return Answer(
            status=response.status,
            predictions=_predictions(content) if response.status == 200 else None,
            seconds=time.perf_counter() - begin,
        )

    def ping(self) -> int:
        """The status of the server's own word that it is well.

        :raises TimeUp: no answer came in time. :raises OSError: the server is gone.
        """
        connection = self._connected()
        try:
            connection.request("GET", "/ping")
            response = connection.getresponse()
            response.read()
        except TimeoutError:
            self.close()
            raise TimeUp from None
        except (http.client.HTTPException, OSError) as error:
            self.close()
            raise ConnectionError(type(error).__name__) from None
        return response.status

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> http.client.HTTPConnection:
        left = self.deadline - time.monotonic()
        if left <= 0:
            self.close()
            raise TimeUp
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=left)
        elif self._connection.sock is not None:
            self._connection.sock.settimeout(left)
        return self._connection


def as_request(frame: pd.DataFrame) -> bytes:
    """The rows as the body of a request; what is missing is null.

    >>> as_request(pd.DataFrame({"x": [0.1, np.nan]}))
    b'{"dataframe_split": {"columns": ["x"], "data": [[0.1], [null]]}}'
    """
    columns = [_plain(frame[name]) for name in frame.columns]
    data = [list(row) for row in zip(*columns, strict=True)]
    split = {"columns": [str(name) for name in frame.columns], "data": data}
    return json.dumps({"dataframe_split": split}, allow_nan=False).encode()


def compare_labels(task: Task, golden: GoldenPredictions, places: Sequence[int], said: list[Any]) -> Compared:
    """Predicted classes must be the recorded ones; predicted numbers may be apart, which is measured.

    :param places: which golden row each answer is about.
    """
    if task is Task.CLASSIFICATION:
        wrong = sum(repr(value) != golden.labels[place] for place, value in zip(places, said, strict=True))
        return Compared(different=wrong, apart=0.0 if not wrong else 1.0, exact=True)
    recorded = [float(golden.labels[place]) for place in places]
    return _numbers(np.asarray(recorded), said)


def compare_scores(golden: GoldenPredictions, said: list[Any]) -> Compared:
    """The probabilities of all golden rows against the recorded ones."""
    return _numbers(np.asarray(golden.scores, dtype=np.float64), said)


def _numbers(recorded: Any, said: list[Any]) -> Compared:
    try:
        values = np.asarray(said, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != recorded.shape:
        return Compared(different=len(recorded), apart=None)
    distances = apart(values, recorded)
    by_row = distances if distances.ndim == 1 else distances.max(axis=1)
    worst = float(distances.max()) if distances.size else 0.0
    return Compared(different=int(np.sum(~(by_row == 0.0))), apart=worst if math.isfinite(worst) else None)


def _plain(column: pd.Series) -> list[Any]:
    missing = column.isna().to_numpy()
    if column.dtype.kind == "M":
        # MLflow's schemas know times without a zone only: moments go as UTC.
        column = column if column.dt.tz is None else column.dt.tz_convert("UTC").dt.tz_localize(None)
        return [None if gone else value.isoformat() for value, gone in zip(column, missing, strict=True)]
    values = column.to_numpy().tolist()
    return [None if gone else value for value, gone in zip(values, missing, strict=True)]


def _predictions(content: bytes) -> list[Any] | None:
    """The list of predictions; a frame of one column counts as its values."""
    try:
        found = json.loads(content)["predictions"]
    except (ValueError, TypeError, KeyError):
        return None
    if not isinstance(found, list):
        return None
    if all(isinstance(each, dict) and len(each) == 1 for each in found):
        return [next(iter(each.values())) for each in found]
    return found
