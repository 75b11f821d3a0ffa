"""Serving sessions: one model version loaded by one server process, and the ids of its predictions.

For the online server. The session's record is written before its first prediction is given, so that a
prediction id leads to the model, its training data and their sources even where the prediction itself never
reached the log: ``<first 24 digits of the session's record id>-<number>``, the numbers counting the
predictions of the session from 0.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from datetime import datetime, timedelta

from airflow_provider_xops.errors import ArgumentError, ConflictError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, ModelVersion, ServingSession
from airflow_provider_xops.serving.batch import PREDICTION_ID_DIGITS

__all__ = ["PredictionIds", "begin", "id_prefix", "key_digest", "number_of"]

log = logging.getLogger(__name__)

ATTEMPTS = 16
KEY_DIGITS = 32


def begin(
    lake: Lake,
    *,
    server: str,
    model: ModelVersion,
    alias: str,
    started_at: datetime,
    log_table: str | None,
    actor: Actor,
) -> ServingSession:
    """Record that this process has loaded a version; gives its session, which nobody else has.

    :param server: the server's own name. Two processes may have the same one.
    :param alias: what it is loaded for ("" where it serves a version by number).
    :param started_at: when it was loaded (aware, UTC). A session that began at the very same microsecond
        under the same name moves this one to the next.
    :param log_table: where its predictions will be written; None: nowhere.
    :raises UnavailableError: the lake does not answer: a version without a session must not serve.
    :raises ConflictError: ``conflict.session``.

    >>> begin(lake, server="gate-1", model=model, alias="champion", started_at=now, log_table="delay_log",
    ...       actor=actor).alias  # doctest: +SKIP
    'champion'
    """
    for later in range(ATTEMPTS):
        session = ServingSession(
            recorded_at=started_at,
            produced_by=actor.producer,
            server=server,
            model=model.ref,
            alias=alias,
            model_record=model.record_id,
            started_at=started_at + timedelta(microseconds=later),
            log_table=log_table,
        )
        # False may be this very call's own write whose answer was lost: the next microsecond does no harm.
        if lake.evidence.put(session, quiet=True):
            log.info("Session %s: %s on %s.", id_prefix(session), model.ref, server)
            return session
    raise ConflictError(
        f"no session of {model.ref} on {server} could be recorded",
        code="conflict.session",
        why=f"{ATTEMPTS} sessions of that name began at the same moment",
        todo="give every server process a name of its own",
    )


def id_prefix(session: ServingSession) -> str:
    """What every prediction id of the session begins with."""
    return session.record_id[:PREDICTION_ID_DIGITS]


def number_of(prediction_id: str) -> int:
    """The number of a prediction within its session.

    :raises ArgumentError: ``argument.prediction_id``.

    >>> number_of("4f0c0ffee4f0c0ffee4f0c0f-17")
    17
    """
    prefix, _, number = prediction_id.rpartition("-")
    if len(prefix) != PREDICTION_ID_DIGITS or not (number.isascii() and number.isdigit()):
        raise ArgumentError(
            "this is no prediction id",
            code="argument.prediction_id",
            why=f"it is {PREDICTION_ID_DIGITS} hexadecimal digits, a dash and a number",
            todo="pass one that the server gave",
        )
    return int(number)


def key_digest(lake_id: str, key: str) -> str:
    """What is kept of a request's key: equal keys of one lake give the same digits, on every server.

    It hides the key from readers of the table, not from somebody who can guess it and try.
    """
    return hashlib.sha256(f"{lake_id}\n{key}".encode()).hexdigest()[:KEY_DIGITS]


class PredictionIds:
    """Gives out the prediction ids of one session, each once, to any number of threads.

    >>> PredictionIds(session).take(3)  # doctest: +SKIP
    0
    """

    def __init__(self, session: ServingSession) -> None:
        self.prefix = id_prefix(session)
        self._next = 0
        self._lock = threading.Lock()

    def take(self, rows: int) -> int:
        """The number of the first of ``rows`` predictions; the others follow it."""
        with self._lock:
            first = self._next
            self._next += rows
            return first

    def text(self, number: int) -> str:
        """The id of a number."""
        return f"{self.prefix}-{number}"

    def texts(self, rows: int) -> list[str]:
        """``rows`` new ids."""
        first = self.take(rows)
        return [f"{self.prefix}-{number}" for number in range(first, first + rows)]
