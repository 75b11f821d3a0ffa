"""The prediction log: what the online server answered, in a table of the lake, without slowing an answer.

For the online server. A request leaves its predictions in a queue in memory (:meth:`PredictionLog.offer`,
which never waits); a thread of the log's own writes what has gathered, one commit at a time. The table is
appended to, a partition a UTC day, and has the columns that batch predictions have (``prediction_id``,
``prediction``, ``score``, ``model_name``, ``model_version``) beside those that an online prediction adds.

How much can be lost, and nothing more:

* a server that is stopped: nothing, if the lake answers within the time that :meth:`PredictionLog.close` is
  given; it returns how many rows it could not write.
* a server that is killed: what was in its queue, that is the rows of the last ``flush_seconds`` and of the
  flush that was under way; never more than ``max_rows``.
* a lake that does not answer: the queue fills up to ``max_rows``; then rows are dropped and counted
  (``overflow="drop"``), or requests refused before they are predicted (``overflow="refuse"``, by
  :meth:`PredictionLog.has_room`). What is queued is written when the lake answers again.
* a table that refuses rows, because a column has another type in it: input columns are left out and the
  predictions written (``without_inputs``); predictions of another type are dropped and counted.

A flush is written once: its batch id is of this log and its number, so a flush whose answer was lost is found
in the table and not written again, whatever has been committed or compacted meanwhile.
"""

from __future__ import annotations

import itertools
import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import pyarrow as pa

from airflow_provider_xops.errors import (
    ArgumentError,
    DataError,
    NotFoundError,
    Superseded,
    XOpsError,
)
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.history import stream_position
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import WAY_SUFFIXES, check_table_name, open_table, table_schema
from airflow_provider_xops.records import Actor, VariantRole, WriteMode
from airflow_provider_xops.serving.online._log_rows import (
    ALL,
    LOG_COLUMNS,
    LoggedBatch,
    column_of,
    day_of,
    tables_by_day,
)

__all__ = ["ALL", "LOG_COLUMNS", "LogStats", "LoggedBatch", "PredictionLog", "column_of", "day_of"]

log = logging.getLogger(__name__)

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
CLOSING_WAIT_SECONDS = 0.2
# An error that nobody foresaw may pass, or may come for ever: it is tried this often.
UNFORESEEN_TRIES = 5
EVOLVE = {"added": "evolve", "removed": "fill_null", "retyped": "fail"}


@dataclass(frozen=True, kw_only=True)
class LogStats:
    """How the log is doing, in rows since it began.

    :param queued: waiting, or being written now. :param written: in the table.
    :param dropped: never to be written: no room, refused by the table, or offered after the end.
    :param flushes: commits made. :param failed_flushes: tries that failed.
    :param oldest_seconds: how long the oldest queued row has waited; None: none waits.
    :param last_error: what the newest try failed with (code and sentence, no data); None: it did not fail.
    :param without_inputs: of those written, how many without their input columns, which the table refused.
    """

    queued: int
    written: int
    dropped: int
    flushes: int
    failed_flushes: int
    oldest_seconds: float | None
    last_error: str | None
    without_inputs: int = 0


class PredictionLog:
    """Gathers predictions and appends them to a table of the lake.

    :param lake_factory: opens the lake; called in the log's thread, again after a failure.
    :param table: where the rows go; made by the first flush.
    :param server: the server's own name, for the batch ids and the rows' reader.
    :param max_rows: rows in memory at most. :param flush_rows: so many are written at once.
    :param flush_seconds: how long a row waits for others at most.
    :param overflow: with a full queue ``drop`` new rows, or ``refuse`` requests (see :meth:`has_room`).
    :param keep_columns: input columns that are kept beside the predictions; ``*`` for all, without which a
        prediction cannot be explained later.
    :param clock: gives the present moment (aware, UTC). :param actor: on whose behalf rows are written.
    :raises ArgumentError: ``argument.prediction_log``, ``argument.table``.

    >>> log = PredictionLog(lambda: open_lake(settings), "delay_log", server="gate-1", clock=now,
    ...                     actor=actor)  # doctest: +SKIP
    >>> log.offer(LoggedBatch(session=session, variant=VariantRole.PRIMARY, first=0, rows=1, at=now(),
    ...                       predictions=labels))  # doctest: +SKIP
    True

    What it does not do: it does not deliver what was queued in a process that was killed, and it does not
    keep the order of requests among servers (``at`` says when each was answered).
    """

    def __init__(
        self,
        lake_factory: Callable[[], Lake],
        table: str,
        *,
        server: str,
        max_rows: int = 100_000,
        flush_rows: int = 5_000,
        flush_seconds: float = 5.0,
        overflow: str = "drop",
        keep_columns: Sequence[str] = (),
        clock: Callable[[], datetime],
        actor: Actor,
    ) -> None:
        _check(table, max_rows, flush_rows, flush_seconds, overflow, keep_columns)
        self.table = table
        self.server = server
        self.overflow = overflow
        self.keep_columns = tuple(keep_columns)
        self._lake_factory, self._clock, self._actor = lake_factory, clock, actor
        self._max_rows, self._flush_rows, self._flush_seconds = max_rows, flush_rows, flush_seconds
        self._stream = f"log:{server}/{uuid.uuid4().hex}"
        self._changed = threading.Condition()
        self._waiting: deque[LoggedBatch] = deque()
        self._under_way: tuple[LoggedBatch, ...] = ()
        self._waiting_rows = self._queued = 0
        self._written = self._dropped = self._flushes = self._failed = self._without_inputs = 0
        self._last_error: str | None = None
        self._number = 0
        self._closing = self._hurry = self._given_up = False
        self._thread: threading.Thread | None = None
        self._lake: Lake | None = None

    def has_room(self, rows: int) -> bool:
        """Whether so many more rows fit. With ``overflow="refuse"`` the server asks before it predicts.

        A request of more rows than ever fit is let in when nothing is queued: else nobody would answer it.
        """
        with self._changed:
            return not self._closing and (not self._queued or self._queued + rows <= self._max_rows)

    def offer(self, entry: LoggedBatch) -> bool:
        """Take the rows of a request; False if they will not be written. Never waits for the lake.

        With ``overflow="refuse"`` an answer that was let in is always taken, so the queue can exceed
        ``max_rows`` by what was being predicted at that moment; a shadow's rows are dropped.
        """
        rows = entry.logged_rows
        with self._changed:
            full = self._queued + rows > self._max_rows
            owed = self.overflow == "refuse" and entry.variant is not VariantRole.SHADOW
            if self._closing or (full and not owed):
                self._dropped += rows
                return False
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="xops-prediction-log", daemon=True)
                self._thread.start()
            self._waiting.append(self._lighter(entry))
            self._waiting_rows += rows
            self._queued += rows
            if len(self._waiting) == 1 or self._waiting_rows >= self._flush_rows:
                self._changed.notify_all()
            return True

    def stats(self) -> LogStats:
        """How it is doing now."""
        with self._changed:
            first = self._under_way[:1] or tuple(self._waiting)[:1]
            oldest = first[0].at if first else None
            return LogStats(
                queued=self._queued,
                written=self._written,
                dropped=self._dropped,
                flushes=self._flushes,
                failed_flushes=self._failed,
                oldest_seconds=None if oldest is None else (self._clock() - oldest).total_seconds(),
                last_error=self._last_error,
                without_inputs=self._without_inputs,
            )

    def flush(self, timeout: float) -> bool:
        """Write what is queued now, and wait for that; False if it took longer than ``timeout`` seconds."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: self._queued == 0, timeout)
            self._hurry = self._hurry and not done
            return done

    def close(self, timeout: float) -> int:
        """Take no more rows and write what is queued; gives the rows that are not written.

        :param timeout: seconds it may take. After it, what is under way may still land in the table.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout)
        with self._changed:
            self._given_up, left = True, self._queued
            self._changed.notify_all()
        if left:
            log.error("The prediction log of %s ended with %d rows unwritten.", self.server, left)
        return left

    def _lighter(self, entry: LoggedBatch) -> LoggedBatch:
        """The batch without the columns that are not kept, which would only take memory."""
        return entry if self.keep_columns or entry.columns is None else replace(entry, columns=None)

    def _run(self) -> None:
        while batches := self._next():
            self._write(batches)
            # Else its rows would stay in memory until the next ones come.
            del batches

    def _next(self) -> tuple[LoggedBatch, ...]:
        """What is to be written next, when it is due; nothing at the end."""
        with self._changed:
            self._under_way = ()
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if self._waiting:
                self._changed.wait_for(self._due, self._flush_seconds)
            self._hurry = False
            self._under_way = tuple(self._waiting)
            self._waiting.clear()
            self._waiting_rows = 0
            return self._under_way

    def _due(self) -> bool:
        return self._waiting_rows >= self._flush_rows or self._closing or self._hurry

    def _write(self, batches: tuple[LoggedBatch, ...]) -> None:
        """Write some batches in one commit, however long the lake takes.

        What the table refuses is tried session by session, so that it takes nothing else with it.
        """
        self._number += 1
        unforeseen, wait = 0, FIRST_WAIT_SECONDS
        for attempt in itertools.count():
            try:
                self._commit(self._number, batches, again=attempt > 0)
                return self._settle(batches, written=True)
            except (DataError, ArgumentError, Superseded) as error:
                self._note(error.code, error.what)
                return self._refused(batches)
            except XOpsError as error:
                self._note(error.code, error.what)
            except BaseException as error:
                # Also a panic of a library in Rust, which is no Exception. Its text may quote a row's values.
                unforeseen += 1
                self._note("log.unforeseen", f"{type(error).__name__} while a flush was written")
                if unforeseen >= UNFORESEEN_TRIES:
                    return self._refused(batches)
            self._lake = None
            if not self._pause(wait):
                return None
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)
        return None

    def _commit(self, number: int, batches: tuple[LoggedBatch, ...], *, again: bool) -> None:
        lake = self._lake = self._lake or self._lake_factory()
        known = _schema_of(lake, self.table)
        days = sorted({day_of(batch.at) for batch in batches})
        if again and known is not None:
            # An answer may have been lost, and the files of a flush that did land compacted since.
            at = stream_position(lake, self.table, partition=days[0], stream=self._stream)
            if at is not None and at >= number:
                log.info("Flush %d of %s had landed.", number, self.server)
                return
        tables = tables_by_day(batches, keep=self.keep_columns, lake_id=lake.lake_id, known=known)
        batch_id = f"{self._stream}/{number}"
        commit(
            lake,
            self.table,
            [
                Segment(day, batch_id, table.to_reader, batch_id, stream=self._stream)
                for day, table in tables.items()
            ],
            mode=WriteMode.APPEND,
            evolve=EVOLVE,
            actor=replace(self._actor, idempotency_key=batch_id, fence=number),
            as_of=self._clock(),
            note=f"predictions of {self.server}",
            evidence=False,
        )

    def _refused(self, batches: tuple[LoggedBatch, ...]) -> None:
        by_session: dict[str, list[LoggedBatch]] = {}
        for batch in batches:
            by_session.setdefault(batch.session.record_id, []).append(batch)
        if len(by_session) > 1:
            for several in by_session.values():
                self._write(tuple(several))
        elif any(batch.columns is not None for batch in batches):
            # What was predicted is worth more than what it was made of.
            bare = tuple(replace(batch, columns=None) for batch in batches)
            written = self._written
            self._write(bare)
            if self._written > written:
                self._note_bare(self._written - written)
        else:
            self._settle(batches, written=False)

    def _note_bare(self, rows: int) -> None:
        with self._changed:
            self._without_inputs += rows
        log.error(
            "The prediction log of %s wrote %d rows without their inputs, which %s refused.",
            self.server, rows, self.table,
        )  # fmt: skip

    def _settle(self, batches: tuple[LoggedBatch, ...], *, written: bool) -> None:
        rows = sum(batch.logged_rows for batch in batches)
        with self._changed:
            self._queued -= rows
            if written:
                self._written += rows
                self._flushes += 1
                recovered, self._last_error = self._last_error, None
            else:
                self._dropped += rows
            self._changed.notify_all()
        if not written:
            log.error(
                "The prediction log of %s dropped %d rows that %s refused.", self.server, rows, self.table
            )
        elif recovered:
            log.info("The prediction log of %s writes again.", self.server)

    def _note(self, code: str, what: str) -> None:
        with self._changed:
            self._failed += 1
            first, self._last_error = self._last_error is None, f"[{code}] {what}"
            self._changed.notify_all()
        if first:
            log.warning(
                "The prediction log of %s cannot write to %s: [%s] %s.", self.server, self.table, code, what
            )

    def _pause(self, seconds: float) -> bool:
        """Wait before another try; False if there is to be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._given_up or self._closing, seconds)
            if self._closing and not self._given_up:
                self._changed.wait_for(lambda: self._given_up, min(seconds, CLOSING_WAIT_SECONDS))
            return not self._given_up


def _schema_of(lake: Lake, table: str) -> pa.Schema | None:
    try:
        return table_schema(open_table(lake, table))
    except NotFoundError:
        return None


def _check(
    table: str,
    max_rows: int,
    flush_rows: int,
    flush_seconds: float,
    overflow: str,
    keep_columns: Sequence[str],
) -> None:
    check_table_name(table)
    wrong = ""
    if table.endswith(WAY_SUFFIXES):
        wrong = f"{table} is the name of a table on the way to a published one"
    elif not 1 <= flush_rows <= max_rows:
        wrong = f"{flush_rows} rows a flush of {max_rows} rows in memory"
    elif not flush_seconds > 0:
        wrong = f"{flush_seconds} seconds between flushes"
    elif overflow not in ("drop", "refuse"):
        wrong = f"an overflow of {overflow[:40]!r}"
    elif isinstance(keep_columns, str):
        wrong = "keep_columns is a text, not a list of names"
    if wrong:
        raise ArgumentError(
            f"the prediction log cannot be made: {wrong}",
            code="argument.prediction_log",
            todo="use 1 <= flush_rows <= max_rows, flush_seconds > 0, and overflow drop or refuse",
        )
