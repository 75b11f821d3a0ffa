"""Shadows: versions that are asked what others were asked, and answer nobody.

For the online server. After the answer has gone, the request is left here (:meth:`ShadowRunner.offer`, which
never waits); one thread asks the shadow, compares what it says with what the caller got, and leaves both to
the prediction log. A shadow that is slow or fails changes no answer: what it cannot keep up with is dropped
and counted.

What it does not do: a shadow computes on the same processors as the versions that answer. How much it is
asked is its weight in the traffic split.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

import numpy as np

from airflow_provider_xops.errors import ArgumentError, ModelError, XOpsError
from airflow_provider_xops.records import ServingSession, VariantRole
from airflow_provider_xops.serving.online.prediction_log import LoggedBatch, PredictionLog
from airflow_provider_xops.serving.online.sessions import number_of
from airflow_provider_xops.training.metrics import Predictions

__all__ = ["Asked", "ShadowComparison", "ShadowRequest", "ShadowRunner", "ShadowStats", "compare"]

log = logging.getLogger(__name__)


class Asked(Protocol):
    """What is needed of a loaded model to ask it."""

    @property
    def session(self) -> ServingSession:
        """Its session, which begins its prediction ids."""

    def predict(self, frame: Any) -> Predictions:
        """Its answer to some rows."""

    def next_ids(self, rows: int) -> list[str]:
        """New prediction ids, one a row."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ShadowRequest:
    """A request that was answered, for a shadow to look at.

    :param shadow: the version to ask; ``weight`` its share of the requests.
    :param frame: the rows as the answering version saw them. Must not be changed afterwards.
    :param answered: what the caller got; ``answered_id`` the id of its first prediction.
    :param at: when it was answered. :param key: the request's sticky key, if it had one.
    :param done: called once when the shadow is no longer needed, whether it was asked or not.
    """

    shadow: Asked
    frame: Any = field(repr=False)
    answered: Predictions = field(repr=False)
    answered_id: str
    at: datetime
    weight: float = 1.0
    key: str | None = field(default=None, repr=False)
    done: Callable[[], None] | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class ShadowComparison:
    """A shadow's answer to one request beside the one that was given.

    :param agreeing: rows with the same predicted class; None for numbers.
    :param difference: mean distance between the two scores (of predicted numbers: between those); None where
        either has none.
    :param error: code of the error where the shadow gave no answer.
    """

    model: str
    version: int
    rows: int
    seconds: float
    agreeing: int | None = None
    difference: float | None = None
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class ShadowStats:
    """What one shadow did since the server began.

    :param requests: asked and answered, with ``rows`` in all. :param failed: asked in vain.
    :param dropped: not asked, because it could not keep up.
    :param compared: rows whose classes could be compared, ``agreeing`` of them the same.
    :param difference: mean distance of the scores (or predicted numbers), over ``differing_rows`` rows; None:
        there was none to take.
    """

    requests: int = 0
    rows: int = 0
    failed: int = 0
    dropped: int = 0
    compared: int = 0
    agreeing: int = 0
    difference: float | None = None
    difference_rows: int = 0

    @property
    def agreement(self) -> float | None:
        """Share of the compared rows that agree; None: no row was compared."""
        return self.agreeing / self.compared if self.compared else None


class ShadowRunner:
    """Asks shadows in a thread of its own.

    :param prediction_log: where their predictions go; None: nowhere.
    :param max_waiting: requests that may wait; :param max_rows: rows that may wait, all requests together.
    :param on_compared: called in the shadow's thread with each comparison, for metrics; it must be quick.
    :raises ArgumentError: ``argument.shadow``.

    >>> runner = ShadowRunner(log)
    >>> runner.offer(ShadowRequest(shadow=loaded, frame=frame, answered=said, answered_id=ids[0],
    ...                            at=now))  # doctest: +SKIP
    True
    """

    def __init__(
        self,
        prediction_log: PredictionLog | None,
        *,
        max_waiting: int = 256,
        max_rows: int = 20_000,
        on_compared: Callable[[ShadowComparison], None] | None = None,
    ) -> None:
        if max_waiting < 1 or max_rows < 1:
            raise ArgumentError(
                "no request could wait for a shadow",
                code="argument.shadow",
                todo="let 1 or more requests and rows wait",
            )
        self._log, self._on_compared = prediction_log, on_compared
        self._max_waiting, self._max_rows = max_waiting, max_rows
        self._changed = threading.Condition()
        self._waiting: deque[ShadowRequest] = deque()
        self._rows = 0
        self._busy = self._closing = False
        self._stats: dict[tuple[str, int], ShadowStats] = {}
        self._thread: threading.Thread | None = None

    def offer(self, request: ShadowRequest) -> bool:
        """Leave a request for its shadow; False if it is not going to be asked. Never waits."""
        rows = len(request.frame)
        with self._changed:
            taken = (
                not self._closing
                and len(self._waiting) < self._max_waiting
                and self._rows + rows <= self._max_rows
            )
            if taken:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="xops-shadow", daemon=True)
                    self._thread.start()
                self._waiting.append(request)
                self._rows += rows
                self._changed.notify_all()
            else:
                self._count(request, dropped=1)
        if not taken and request.done is not None:
            request.done()
        return taken

    def stats(self) -> dict[tuple[str, int], ShadowStats]:
        """By model name and version, what each shadow did."""
        with self._changed:
            return dict(self._stats)

    def wait(self, timeout: float) -> bool:
        """Until nothing waits; False if that took longer than ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout)

    def close(self, timeout: float) -> int:
        """Take no more requests; gives how many that waited could not be asked in ``timeout`` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout)
        with self._changed:
            left = list(self._waiting)
            self._waiting.clear()
            self._rows = 0
            for request in left:
                self._count(request, dropped=1)
            self._changed.notify_all()
        for request in left:
            if request.done is not None:
                request.done()
        return len(left)

    def _run(self) -> None:
        while (request := self._next()) is not None:
            try:
                self._ask(request)
            except BaseException as error:
                # Whatever it is, the next request is asked; its text may quote the rows.
                log.warning("A shadow could not be compared (%s).", type(error).__name__)
                with self._changed:
                    self._count(request, failed=1)
            finally:
                if request.done is not None:
                    request.done()
            # Else its version and its rows would stay in memory until another request comes.
            del request

    def _next(self) -> ShadowRequest | None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if not self._waiting:
                return None
            request = self._waiting.popleft()
            self._rows -= len(request.frame)
            self._busy = True
            return request

    def _ask(self, request: ShadowRequest) -> None:
        shadow, rows = request.shadow, len(request.frame)
        first, said, error = number_of(shadow.next_ids(rows)[0]), None, ""
        began = time.perf_counter()
        try:
            said = shadow.predict(_own_columns(shadow, request.frame))
        except XOpsError as caught:
            error = caught.code
        except BaseException as caught:  # a model may raise anything; its text may quote the rows
            error = f"model.{type(caught).__name__}"
        seconds = time.perf_counter() - began
        agreeing, difference = (None, None) if said is None else compare(request.answered, said)
        model = shadow.session.model
        comparison = ShadowComparison(
            model=model.name, version=model.version, rows=rows, seconds=seconds, agreeing=agreeing,
            difference=difference, error=error,
        )  # fmt: skip
        with self._changed:
            self._add(comparison)
        if error:
            log.debug("Shadow %s did not answer (%s).", model, error)
        if self._log is not None:
            self._log.offer(
                LoggedBatch(
                    session=shadow.session, variant=VariantRole.SHADOW, weight=request.weight, first=first,
                    rows=rows, at=request.at, predictions=None if said is None else said.labels,
                    scores=None if said is None else said.scores, key=request.key,
                    shadow_of=request.answered_id, duration_ms=1000 * seconds, error=error,
                )
            )  # fmt: skip
        if self._on_compared is not None:
            self._on_compared(comparison)

    def _count(self, request: ShadowRequest, *, dropped: int = 0, failed: int = 0) -> None:
        model = request.shadow.session.model
        key = (model.name, model.version)
        known = self._stats.get(key, ShadowStats())
        self._stats[key] = replace(known, dropped=known.dropped + dropped, failed=known.failed + failed)

    def _add(self, made: ShadowComparison) -> None:
        key = (made.model, made.version)
        known = self._stats.get(key, ShadowStats())
        if made.error:
            self._stats[key] = replace(known, failed=known.failed + 1)
            return
        known = replace(known, requests=known.requests + 1, rows=known.rows + made.rows)
        if made.agreeing is not None:
            known = replace(
                known, compared=known.compared + made.rows, agreeing=known.agreeing + made.agreeing
            )
        if made.difference is not None:
            rows = known.difference_rows + made.rows
            so_far = (known.difference or 0.0) * known.difference_rows
            known = replace(
                known, difference=(so_far + made.difference * made.rows) / rows, difference_rows=rows
            )
        self._stats[key] = known


def _own_columns(shadow: Asked, frame: Any) -> Any:
    """The columns that the shadow takes, in its order; it may take fewer than the version that answered."""
    names = [each.name for each in getattr(shadow, "features", ())]
    if not names or list(frame.columns) == names:
        return frame
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise ModelError(
            f"{shadow.session.model} does not accept these rows",
            code="model.columns_missing",
            why=f"the columns {', '.join(missing)} are missing",
            todo="let requests bring the columns of every version that is asked",
        )
    return frame[names]


def compare(answered: Predictions, said: Predictions) -> tuple[int | None, float | None]:
    """How many classes agree, and the mean distance of the scores (or numbers); None where there is none.

    Missing agrees with nothing.

    >>> one = Predictions(labels=np.array(["a", "b"]), classes=np.array(["a", "b"]))
    >>> other = Predictions(labels=np.array(["a", "a"]), classes=np.array(["a", "b"]))
    >>> compare(one, other)
    (1, None)
    """
    if answered.classes is None and said.classes is None:
        return None, _distance(answered.labels, said.labels)
    if answered.scores is None or said.scores is None:
        difference = None
    else:
        difference = _distance(answered.scores, said.scores)
    same = [
        bool(one == other) for one, other in zip(answered.labels.tolist(), said.labels.tolist(), strict=True)
    ]
    return sum(same), difference


def _distance(one: Any, other: Any) -> float | None:
    try:
        apart = np.abs(np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64))
    except (TypeError, ValueError):
        return None
    mean = float(apart.mean()) if apart.size else float("nan")
    return mean if np.isfinite(mean) else None
