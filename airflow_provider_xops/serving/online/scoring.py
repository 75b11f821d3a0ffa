"""One request's work: read, check, predict, answer, and leave what is to be logged.

For the edge, which calls :meth:`Scorer.answer` in one of its worker threads. Nothing here waits for the lake
or for MLflow: the version is held in memory, its prediction goes to the queue of the log, and shadows are
asked later by a thread of their own.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import numpy as np

from airflow_provider_xops.errors import ModelError, NotFoundError, UnavailableError
from airflow_provider_xops.serving.online import protocol_mlflow, protocol_v2
from airflow_provider_xops.serving.online.answers import JSON, Answer, Protocol, Refusal, encode, labels_of
from airflow_provider_xops.serving.online.fleet import Fleet, Lease
from airflow_provider_xops.serving.online.inputs import Columns, Extra, Inputs, Reader
from airflow_provider_xops.serving.online.metrics import Figures
from airflow_provider_xops.serving.online.prediction_log import LoggedBatch, PredictionLog
from airflow_provider_xops.serving.online.shadow import ShadowRequest, ShadowRunner
from airflow_provider_xops.serving.online.variants import LoadedModel
from airflow_provider_xops.training.metrics import Predictions

__all__ = ["ALL_COLUMNS", "Ask", "Scorer"]

log = logging.getLogger(__name__)

ALL_COLUMNS = "*"


@dataclass(frozen=True, slots=True)
class Ask:
    """A request for predictions as it came.

    :param key: the sticky key; None: the client sent none. :param version: only this version may answer.
    """

    protocol: Protocol
    body: bytes
    content_type: str = ""
    key: str | None = None
    version: int | None = None


class Scorer:
    """Answers the requests for one served model.

    :param name: what clients call it.
    :param prediction_log: None: predictions are not logged. :param shadows: None: shadows are not asked.
    :param keep_columns: columns beside the features that a request may bring for the log.
    :param clock: gives the time (aware, UTC).
    """

    def __init__(
        self,
        name: str,
        fleet: Fleet,
        figures: Figures,
        *,
        max_rows: int,
        extra: Extra = "refuse",
        prediction_log: PredictionLog | None = None,
        shadows: ShadowRunner | None = None,
        keep_columns: Sequence[str] = (),
        clock: Callable[[], datetime],
    ) -> None:
        self.name = name
        self._name_header = _header(name)
        self.fleet = fleet
        self.prediction_log = prediction_log
        self.shadows = shadows
        self._figures = figures
        self._max_rows = max_rows
        self._extra = extra
        self._keep = tuple(name for name in keep_columns if name != ALL_COLUMNS)
        self._clock = clock
        self._readers: weakref.WeakKeyDictionary[LoadedModel, Reader] = weakref.WeakKeyDictionary()

    def answer(self, ask: Ask) -> Answer:
        """The answer to a request.

        :raises Refusal: with the status that fits; its text holds nothing the client sent.
        """
        if ask.protocol == "v2":
            v2 = protocol_v2.parse(ask.body)
            with self._lease(ask) as lease, _told(lease):
                return self._v2(ask, v2, lease)
        question = protocol_mlflow.parse(ask.body, ask.content_type)
        with self._lease(ask) as lease, _told(lease):
            return self._mlflow(ask, question, lease)

    def columns(self, loaded: LoadedModel) -> Columns:
        """The columns that a version takes."""
        return self._reader(loaded).columns

    def _v2(self, ask: Ask, question: protocol_v2.Question, lease: Lease) -> Answer:
        inputs = protocol_v2.read(question, self._reader(lease.loaded))
        said, seconds, finite = self._predict(ask, lease, inputs)
        number = lease.loaded.ids.take(inputs.rows)
        first = lease.loaded.ids.text(number)
        content = protocol_v2.answer(
            question, said, model=self.name, version=lease.loaded.version, prediction_id=first
        )
        return self._finish(ask, lease, inputs, said, number, first, seconds, encode(content), finite)

    def _mlflow(self, ask: Ask, question: protocol_mlflow.Question, lease: Lease) -> Answer:
        inputs = protocol_mlflow.read(question, self._reader(lease.loaded))
        said, seconds, finite = self._predict(ask, lease, inputs)
        number = lease.loaded.ids.take(inputs.rows)
        first = lease.loaded.ids.text(number)
        body = encode(protocol_mlflow.answer(question, said))
        return self._finish(ask, lease, inputs, said, number, first, seconds, body, finite)

    def _lease(self, ask: Ask) -> Lease:
        try:
            if ask.version is not None:
                return self.fleet.lease_version(ask.version)
            return self.fleet.lease(ask.key)
        except UnavailableError:
            raise Refusal(
                503,
                "unavailable.model",
                "no version of the model is loaded yet; GET /xops/status says why",
                headers={"Retry-After": "2"},
            ) from None
        except NotFoundError:
            raise Refusal(404, "not_found.loaded_version", "this version is not loaded") from None

    def _reader(self, loaded: LoadedModel) -> Reader:
        reader = self._readers.get(loaded)
        if reader is None:
            reader = self._readers[loaded] = Reader(
                Columns.of(loaded.features), keep=self._keep, extra=self._extra, most=self._max_rows
            )
        return reader

    def _predict(self, ask: Ask, lease: Lease, inputs: Inputs) -> tuple[Predictions, float, bool]:
        """The predictions, the seconds they took, and whether all their numbers are finite."""
        logged = self.prediction_log
        if logged is not None and logged.overflow == "refuse" and not logged.has_room(inputs.rows):
            raise Refusal(
                503,
                "unavailable.log",
                "predictions cannot be logged at the moment, so none are made",
                headers={"Retry-After": "5"},
            )
        began = time.perf_counter()
        try:
            said = lease.loaded.predict(inputs.frame)
        except ModelError as error:
            refusal = self._failed(ask, lease, inputs, error)
            # Else a candidate that takes no missing values would pass for healthy: all it does is refuse.
            refusal.failed = True
            raise refusal from None
        seconds = time.perf_counter() - began
        wrong = _not_finite(said)
        self._figures.predicted(
            self.name, str(lease.loaded.version), str(lease.variant.role), inputs.rows, seconds,
            not_finite=wrong,
        )  # fmt: skip
        return said, seconds, not wrong

    def _failed(self, ask: Ask, lease: Lease, inputs: Inputs, error: ModelError) -> Refusal:
        """What the model itself refuses: the client's affair where values are missing, else the model's."""
        missing = [str(name) for name, gone in inputs.frame.isna().any().items() if gone]
        # The error's own words describe what the estimator said; its log line goes without them too.
        log.warning(
            "%s could not predict %d rows (%s); columns with missing values: %d.",
            lease.loaded.ref, inputs.rows, error.code, len(missing),
        )  # fmt: skip
        if missing:
            return Refusal(
                400,
                "input.missing_values",
                "the model cannot predict these rows; values are missing in "
                + self._reader(lease.loaded).columns.told(missing),
            )
        if self.prediction_log is not None:
            self.prediction_log.offer(
                LoggedBatch(
                    session=lease.loaded.session, variant=lease.variant.role, weight=lease.variant.weight,
                    first=lease.loaded.ids.take(1), rows=inputs.rows, at=self._clock(), key=ask.key,
                    error=error.code,
                )
            )  # fmt: skip
        return Refusal(500, error.code, "the model cannot predict these rows")

    def _finish(
        self,
        ask: Ask,
        lease: Lease,
        inputs: Inputs,
        said: Predictions,
        number: int,
        first: str,
        seconds: float,
        body: bytes,
        finite: bool,
    ) -> Answer:
        loaded, variant = lease.loaded, lease.variant
        if self.prediction_log is not None or (self.shadows is not None and lease.shadows):
            at = self._clock()
            if self.prediction_log is not None:
                self.prediction_log.offer(
                    LoggedBatch(
                        session=loaded.session, variant=variant.role, weight=variant.weight, first=number,
                        rows=inputs.rows, at=at, predictions=said.labels, scores=said.scores, key=ask.key,
                        columns=self._logged(inputs), duration_ms=1000 * seconds,
                    )
                )  # fmt: skip
            self._ask_shadows(ask, lease, inputs, said, first, at)
        version, role = str(loaded.version), str(variant.role)
        headers = (
            JSON,
            (b"x-model-name", self._name_header),
            (b"x-model-version", version.encode()),
            (b"x-variant", role.encode()),
            (b"x-prediction-id", first.encode()),
        )
        return Answer(200, body, headers, self.name, version, role, inputs.rows, failed=not finite)

    def _logged(self, inputs: Inputs) -> Any:
        if not inputs.kept:
            return inputs.frame
        return {**{name: inputs.frame[name] for name in inputs.frame.columns}, **inputs.kept}

    def _ask_shadows(
        self, ask: Ask, lease: Lease, inputs: Inputs, said: Predictions, first: str, at: datetime
    ) -> None:
        if self.shadows is None or not lease.shadows:
            return
        plan = self.fleet.plan
        weights = {each.version: each.weight for each in plan.shadows} if plan is not None else {}
        for shadow in lease.shadows:
            self.shadows.offer(
                ShadowRequest(
                    shadow=shadow, frame=inputs.frame, answered=said, answered_id=first, at=at,
                    weight=weights.get(shadow.version, 1.0), key=ask.key,
                )
            )  # fmt: skip


class _told:
    """Says of a refusal which version it was about."""

    __slots__ = ("_lease",)

    def __init__(self, lease: Lease) -> None:
        self._lease = lease

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Refusal):
            error.version = str(self._lease.loaded.version)
            error.variant = str(self._lease.variant.role)


def _not_finite(said: Predictions) -> int:
    """How many rows have a number that is NaN or infinite, which JSON can only tell as null."""
    found = _infinite(labels_of(said))
    probabilities = _infinite(said.probabilities)
    if probabilities is not None:
        rows = probabilities.any(axis=1)
        found = rows if found is None else found | rows
    return 0 if found is None else int(np.count_nonzero(found))


def _infinite(values: Any) -> Any:
    """Where floating numbers are not finite; None: nowhere, or there are none."""
    if values is None or values.dtype.kind != "f":
        return None
    finite = np.isfinite(values)
    return None if finite.all() else ~finite


def _header(text: str) -> bytes:
    """A model's name in a header: ASCII, the rest percent-encoded."""
    return quote(text, safe=" !#$&'()*+,-./:;=?@[]_~").encode()
