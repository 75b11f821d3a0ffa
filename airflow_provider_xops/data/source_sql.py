"""A table or query of a database into a raw table, once: whole partitions, or what is new above a watermark.

For the ingest operator and notebooks::

    orders = SqlSource(conn_id="shop", query="SELECT * FROM orders WHERE day = CAST(:partition AS date)")
    ingest_sql(lake, "orders", orders, engine=engine, partitions=["2013-01-01"], actor=me, as_of=now)

**Whole**: the answer is streamed into a scratch file in canonical order; the digest of its rows is the input
fingerprint. Unchanged rows commit nothing.

**Above a watermark**: the low mark is where the table's last batch of this source ended
(:mod:`~airflow_provider_xops.data._sql_marks`); the high mark is asked for first; rows with
``low < watermark <= high`` are one batch. In PostgreSQL both are read in one snapshot.

What it does not do: see a row that was committed later with a mark at or below the high one (``lag`` reads
such rows again, in merge mode), or notice that a row was deleted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from airflow_provider_xops.data._spooling import Ingested, Spooled, canonical_schema, one_of, spool
from airflow_provider_xops.data._sql_marks import (
    Mark,
    batch_above,
    check_kind,
    encode,
    lowered,
    newest_record,
    reached,
    text_shapes,
)
from airflow_provider_xops.data._sql_query import (
    Statement,
    connected,
    fetching,
    query_digest,
    safe_uri,
)
from airflow_provider_xops.data._sql_types import array_of, described, observed, reflected, unknown_columns
from airflow_provider_xops.data.column_types import Declared, declare, text_of
from airflow_provider_xops.data.declared_sources import SqlSource
from airflow_provider_xops.data.ingest import ALL, load_segments, raw_name, recorded_schema
from airflow_provider_xops.errors import ArgumentError, ConflictError, SourceError
from airflow_provider_xops.lake.commit import Segment
from airflow_provider_xops.records import Actor, SourceFile, WriteMode, digest_of

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake

__all__ = ["ingest_sql"]

log = logging.getLogger(__name__)

# Lost races for one mark; each means that another run has loaded rows.
MAX_RACES = 8


def ingest_sql(
    lake: Lake,
    table: str,
    source: SqlSource,
    *,
    engine: Any,
    partitions: Sequence[str] = (ALL,),
    mode: WriteMode | str = WriteMode.REPLACE,
    keys: Sequence[str] = (),
    schema: Mapping[str, str] | None = None,
    batch_id: str | None = None,
    actor: Actor,
    as_of: datetime,
) -> Ingested:
    """Load a database source into ``<table>__raw``.

    :param engine: an SQLAlchemy engine of the database; it stays the caller's.
    :param partitions: the partitions to load; several need ``:partition`` in the query.
    :param mode: as :func:`~airflow_provider_xops.data.ingest.ingest`; a watermark needs ``append`` or
        ``merge``.
    :param schema: column to type text; None for the recorded one, or at the first load the database's own.
    :param batch_id: as :func:`~airflow_provider_xops.data.ingest.ingest`; not with a watermark.
    :raises SourceError: ``source.query``, ``source.columns``, ``source.types``, ``source.unsupported_type``,
        ``source.null_watermark``, ``source.watermark_type``: nothing was loaded.
    :raises ArgumentError: declarations that do not go together, ``argument.schema_needed``.
    :raises UnavailableError: the database did not answer (retryable).
    """
    mode, raw = WriteMode(mode), raw_name(table)
    _check(source, mode, batch_id)
    load = _Load(lake, raw, source, engine, tuple(partitions), mode, tuple(keys), schema, actor, as_of)
    return load.whole(batch_id) if source.watermark is None else load.above_watermark(source.watermark)


class _Load:
    """One call: what its steps share."""

    def __init__(
        self,
        lake: Lake,
        raw: str,
        source: SqlSource,
        engine: Any,
        partitions: tuple[str, ...],
        mode: WriteMode,
        keys: tuple[str, ...],
        schema: Mapping[str, str] | None,
        actor: Actor,
        as_of: datetime,
    ) -> None:
        self.lake, self.raw, self.source, self.engine = lake, raw, source, engine
        self.mode, self.keys, self.actor, self.as_of = mode, keys, actor, as_of
        self.subject = ".".join(filter(None, (source.schema, source.table))) or "the query"
        self.statements = {
            name: Statement(source, name, only_partition=len(partitions) == 1) for name in partitions
        }
        self.declared: Declared | None = None
        known = dict(schema) if schema is not None else recorded_schema(lake, raw)
        if known is not None:
            self.declared = declare(known)

    def whole(self, batch_id: str | None) -> Ingested:
        """All rows of each partition."""
        with self.lake.storage.scratch() as scratch:
            segments = []
            for partition, statement in self.statements.items():
                with connected(self.engine, self.subject) as connection:
                    columns = self._columns(connection, statement)
                    rows = self._spooled(connection, statement, columns, None, scratch)
                log.info("Read %d rows of %s for partition %s.", rows.rows, self.subject, partition)
                uri = safe_uri(self.engine, self.source)
                fingerprint = digest_of(["sql", rows.digest, self._texts(), list(self.keys)])
                name = None if self.mode is WriteMode.REPLACE else batch_id or f"sources:{fingerprint}"
                segments.append(self._segment(partition, rows, fingerprint, name, uri))
            return self._commit(segments)

    def above_watermark(self, column: str) -> Ingested:
        """What is new in each partition."""
        for _ in range(MAX_RACES):
            with self.lake.storage.scratch() as scratch:
                segments, versions = [], []
                for partition, statement in self.statements.items():
                    at = reached(self.lake, self.raw, partition, name=self._name())
                    if at.mark is None and at.others and self.source.name is None:
                        raise _another_source(self._name(), sorted(at.others), partition)
                    found = self._new_rows(partition, statement, column, at.mark, scratch)
                    segments += [] if found is None else [found]
                    versions += [] if at.version is None else [at.version]
                if not segments:
                    log.info("%s has nothing above the last marks.", self.subject)
                    record = newest_record(self.lake, self.raw, versions)
                    return Ingested(record=record, reused=True, notes={"rows_read": 0})
                done = self._commit(segments)
            if not done.reused:
                return done
            log.info("Another run has loaded above the same marks meanwhile; reading on from there.")
        raise ConflictError(
            f"{MAX_RACES} times another run loaded {self.subject} first", code="conflict.watermark",
            todo="let one run at a time load this source",
        )  # fmt: skip

    def _new_rows(
        self, partition: str, statement: Statement, column: str, low: Mark | None, scratch: Path
    ) -> Segment | None:
        with connected(self.engine, self.subject) as connection:
            columns = self._columns(connection, statement)
            self._look_at_nulls(connection, statement, column, partition)
            if isinstance(low, str):
                self._look_at_shapes(connection, statement, column, low)
            with fetching(self.subject):
                high = connection.execute(statement.maximum(column, statement.above(column, low))).scalar()
            if high is None:
                return None
            upto = encode(high, column=column)
            check_kind(low, high, column=column)
            if isinstance(high, str) and low is None:
                self._look_at_shapes(connection, statement, column, high)
            begin = low
            if low is not None and self.source.lag is not None:
                begin = lowered(low, self.source.lag, column=column)
            nulls = self.source.null_watermark == "load"
            where = statement.between(column, begin, high, nulls=nulls)
            rows = self._spooled(connection, statement, columns, where, scratch)
        above = "start" if low is None else encode(low, column=column)
        log.info("Read %d rows of %s above %s up to %s.", rows.rows, self.subject, above, upto)
        uri = safe_uri(
            self.engine, self.source, source=self._name(), partition=partition, watermark=column, above=above,
            upto=upto,
        )  # fmt: skip
        batch = batch_above(self._name(), low, column=column)
        # What is above a mark is loaded once, by whoever commits it first: the rows found are not part of it.
        return self._segment(partition, rows, digest_of(["sql above", batch]), batch, uri)

    def _look_at_nulls(self, connection: Any, statement: Statement, column: str, partition: str) -> None:
        count = connection.execute(statement.count_nulls(column)).scalar()
        if not count:
            return
        if self.source.null_watermark == "refuse":
            raise SourceError(
                f"{count} rows of {self.subject} have no value in {column!r}", code="source.null_watermark",
                why=f"without a mark it is not known whether they were loaded (partition {partition})",
                todo="give the column a value, or pass null_watermark='skip' or (in merge mode) 'load'",
                context={"column": column, "count": count},
            )  # fmt: skip
        taken = "come with what is new" if self.source.null_watermark == "load" else "are left out"
        log.warning("%d rows of %s have no value in %r: they %s.", count, self.subject, column, taken)

    def _look_at_shapes(self, connection: Any, statement: Statement, column: str, mark: str) -> None:
        """:raises SourceError: ``source.watermark_type``: texts of several forms do not sort by time."""
        count = connection.execute(statement.count_unlike(column, text_shapes(mark))).scalar()
        if count:
            raise SourceError(
                f"column {column!r} cannot be a watermark", code="source.watermark_type",
                why=f"it holds times as text, and {count} rows write them in another form or zone:"
                " they do not sort by time",
                todo="bring them into one form in the table, or in a query",
                context={"column": column, "count": count},
            )  # fmt: skip

    def _spooled(
        self,
        connection: Any,
        statement: Statement,
        columns: tuple[list[str], Mapping[str, str | None]],
        where: Any,
        scratch: Path,
    ) -> Spooled:
        """The selected rows in a scratch file, in canonical order."""
        size = self.source.chunk_rows
        wanted, told = columns
        streamed = connection.execution_options(stream_results=True, yield_per=size)
        with fetching(self.subject):
            result = streamed.execute(statement.rows(wanted, where))
        chunks = iter(result.partitions(size))
        try:
            if self.declared is None:
                with fetching(self.subject):
                    first = next(chunks, None)
                self.declared = self._learned(wanted, told, first or [])
                chunks = chain([] if first is None else [first], chunks)
            schema = canonical_schema(self.declared)
            order = tuple(self.source.order_by) or self.keys
            batches = self._batches(wanted, chunks)
            return spool(batches, schema, scratch, order_by=order, subject=self.subject)
        finally:
            result.close()

    def _batches(self, names: Sequence[str], chunks: Iterator[Any]) -> Iterator[Any]:
        assert self.declared is not None
        first_row = 0
        while True:
            with fetching(self.subject):
                chunk = next(chunks, None)
            if chunk is None:
                return
            columns = dict(zip(names, zip(*chunk, strict=True), strict=True))
            arrays = [
                array_of(
                    columns[name],
                    column,
                    name=name,
                    subject=self.subject,
                    first_row=first_row,
                    timezone=self.source.timezone,
                )
                for name, column in self.declared.items()
            ]
            yield pa.record_batch(arrays, names=list(self.declared))
            first_row += len(chunk)

    def _columns(self, connection: Any, statement: Statement) -> tuple[list[str], dict[str, str | None]]:
        """The columns to read, and of a first load the types that the database tells.

        :raises SourceError: ``source.columns``: they are not those of the table, or not there.
        """
        probe = connection.execute(statement.rows(None, limit=0))
        found, description = list(probe.keys()), probe.cursor.description
        probe.close()
        chosen = list(self.source.columns or found)
        needed = [*chosen, *filter(None, [self.source.watermark])]
        problems = {
            "twice": sorted({name for name in found if found.count(name) > 1}),
            "missing": [name for name in needed if name not in found],
        }
        if self.declared is not None:
            problems["missing"] += [name for name in self.declared if name not in chosen]
            problems["not declared"] = [name for name in chosen if name not in self.declared]
        if any(problems.values()):
            said = [f"{word}: {', '.join(map(repr, names))}" for word, names in problems.items() if names]
            raise SourceError(
                f"{self.subject} does not have the columns of its schema", code="source.columns",
                why="; ".join(said),
                todo="name the columns to read with columns, or load it with a schema that says so",
                context=problems,
            )  # fmt: skip
        if self.declared is not None:
            return list(self.declared), {}
        zone = self.source.timezone
        types: dict[str, str | None] = {}
        if self.engine.dialect.name == "postgresql":
            types = described([one for one in description if one[0] in chosen], timezone=zone)
        elif self.source.table:
            import sqlalchemy as sa

            schema = self.source.schema or None
            columns = sa.inspect(connection).get_columns(self.source.table, schema=schema)
            types = reflected([column for column in columns if column["name"] in chosen], timezone=zone)
        return chosen, types

    def _learned(self, names: Sequence[str], told: Mapping[str, str | None], rows: Sequence[Any]) -> Declared:
        """The columns of a first load: what the database tells, else what the first rows show."""
        seen: Mapping[str, str | None] = {}
        if any(told.get(name) is None for name in names):
            seen = observed(names, rows, timezone=self.source.timezone)
        types = {name: told.get(name) or seen.get(name) for name in names}
        unknown = [name for name in names if types[name] is None]
        if unknown:
            raise unknown_columns(self.subject, unknown)
        known = {name: str(types[name]) for name in names}
        log.info("Learned the columns of table %s from the database: %s.", self.raw, json.dumps(known))
        return declare(known)

    def _segment(
        self, partition: str, rows: Spooled, fingerprint: str, batch: str | None, uri: str
    ) -> Segment:
        name = self.subject if self.source.table else f"query {query_digest(self.source)}"
        file = SourceFile(uri=uri, name=name, sha256=rows.digest, size_bytes=rows.size)
        return Segment(partition, fingerprint, rows.reader, batch, (file,))

    def _commit(self, segments: Sequence[Segment]) -> Ingested:
        result = load_segments(
            self.lake,
            self.raw,
            segments,
            texts=self._texts(),
            mode=self.mode,
            keys=self.keys,
            sorted_already=True,
            actor=self.actor,
            as_of=self.as_of,
        )
        return Ingested(record=result.record, reused=result.reused, notes={})

    def _texts(self) -> dict[str, str]:
        assert self.declared is not None
        return text_of(self.declared)

    def _name(self) -> str:
        """The name under which this source's marks are kept."""
        source = self.source
        if source.name:
            return source.name
        if source.table:
            return f"{source.conn_id}.{self.subject}"
        text = " ".join((source.query or "").split())
        digest = hashlib.sha256(f"{text}\0{digest_of(_plain(source.parameters))}".encode()).hexdigest()
        return f"{source.conn_id}.query-{digest[:16]}"


def _check(source: SqlSource, mode: WriteMode, batch_id: str | None) -> None:
    """:raises ArgumentError: arguments that do not go together."""
    one_of(source.null_watermark, ("refuse", "skip", "load"), argument="null_watermark")
    problem = ""
    lag = source.lag
    if not isinstance(source.chunk_rows, int) or source.chunk_rows < 1:
        problem = "chunk_rows must be a whole number of at least 1"
    elif isinstance(source.columns, str) or isinstance(source.order_by, str):
        problem = "columns and order_by are lists of names"
    elif lag is not None and not (
        lag > timedelta(0) if isinstance(lag, timedelta) else _is_positive_number(lag)
    ):
        problem = "lag must be a timedelta or a number, above zero"
    elif source.watermark is not None and not str(source.watermark).strip():
        problem = "the watermark's name rendered to nothing"
    elif source.watermark is None:
        if source.lag is not None:
            problem = "lag needs a watermark"
    elif mode is WriteMode.REPLACE:
        problem = "a watermark brings what is new: use mode append, or merge with keys"
    elif batch_id is not None:
        problem = "a batch above a watermark is named after its mark: leave batch_id out"
    elif mode is WriteMode.APPEND and (source.lag is not None or source.null_watermark == "load"):
        problem = "lag and null_watermark='load' read rows again: use mode merge with keys"
    if problem:
        raise ArgumentError("the database source's arguments do not go together", code="argument.source",
                            why=problem, todo="correct them")  # fmt: skip


def _is_positive_number(given: Any) -> bool:
    return isinstance(given, int | float | Decimal) and math.isfinite(given) and given > 0


def _another_source(name: str, others: Sequence[str], partition: str) -> ArgumentError:
    return ArgumentError(
        f"partition {partition} was loaded from other incremental sources: {', '.join(others[:5])}",
        code="argument.source_name",
        why=f"this one ({name}) would begin from the start; a changed query is another source",
        todo=f"pass name={others[0]!r} to go on from its mark, or name={name!r} to add this source beside it",
    )


def _plain(parameters: Mapping[str, Any] | None) -> dict[str, str]:
    return {name: repr(value) for name, value in (parameters or {}).items()}
