"""Files into a raw table, once: the first step of every flow.

For the ingest operator and notebooks::

    files = {"2013-01-01": ["in/flights-2013-01-01.csv"]}
    ingest(lake, "flights", files, schema=FLIGHTS, actor=me, as_of=now)

writes ``flights__raw``. A partition's input fingerprint is the names and checksums of its files with the
schema and the way they are read; the same fingerprint is never loaded twice, another one replaces what was
loaded. Nothing is visible in the lake before the last row of the last file was read and typed.

The columns come from ``schema``, else from what the first load of the table recorded, else (first load) from
the files.

What it does not do: validate or publish. Consumers do not see raw tables.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa

from airflow_provider_xops.data.column_types import declare, text_of
from airflow_provider_xops.data.evolution import columns_to_read
from airflow_provider_xops.data.sources import OpenFile, SourceReader, infer_schema, open_source
from airflow_provider_xops.errors import ArgumentError, NotFoundError
from airflow_provider_xops.lake.commit import CommitResult, Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.schema import SchemaPolicy
from airflow_provider_xops.lake.tables import (
    RAW_SUFFIX,
    WAY_SUFFIXES,
    base_name,
    check_table_name,
    open_table,
    table_schema,
)
from airflow_provider_xops.records import Actor, WriteMode, digest_of

__all__ = ["expand_partitions", "ingest", "load_segments", "raw_name", "recorded_schema"]

log = logging.getLogger(__name__)

ALL = "all"
SCHEMAS = "_xops/schemas"
MAX_PARTITIONS = 10_000


def ingest(
    lake: Lake,
    table: str,
    sources: Mapping[str, str | Sequence[str]],
    *,
    mode: WriteMode | str = WriteMode.REPLACE,
    keys: Sequence[str] = (),
    schema: Mapping[str, str] | Any | None = None,
    format: str | None = None,
    delimiter: str | None = None,
    na_values: Sequence[str] = ("", "NA"),
    batch_id: str | None = None,
    on_schema_change: Mapping[str, str] | None = None,
    open_file: OpenFile | None = None,
    actor: Actor,
    as_of: datetime,
) -> CommitResult:
    """Load files into ``<table>__raw``; a partition whose files were loaded before is left alone.

    :param table: the published name; the raw table's name is made from it.
    :param sources: partition to the file (or files, in order) that make it up.
    :param mode: ``replace`` (the partition is what its files say), ``append`` (the files are one batch of
        it) or ``merge`` (as append, and rows with the same ``keys`` replace older ones). Fixed by the first
        load.
    :param keys: columns that identify a row; rows are kept in their order.
    :param schema: column to type text; None for the recorded one, or at the first load for an inferred one.
    :param format: ``csv``, ``jsonl``, ``parquet``; None goes by the suffix. ``delimiter`` and ``na_values``
        are of CSV.
    :param batch_id: in append and merge mode, what the batch is called; default: a digest of names and
        checksums, so that a corrected file is another batch. Give one (a run's logical date) to have it
        replace the earlier load.
    :param on_schema_change: what happens to files of other columns than the table's: ``{"added": "evolve" |
        "ignore" | "fail", "removed": "fill_null" | "fail"}``; None: they are refused.
    :param open_file: opens what is not a local file.
    :return: the version that holds the data, ``reused`` if it did before.
    :raises SourceError: a file is missing or is not what its schema says; nothing was loaded.
    :raises ArgumentError: nothing to load, a name or schema that cannot be one, ``argument.schema_needed``
        (a first load without rows and without a schema).
    :raises DataError, Superseded, ConflictError: as :func:`~airflow_provider_xops.lake.commit.commit`.
    """
    raw = raw_name(table)
    readers = _open_all(sources, format, delimiter, na_values, open_file)
    known = dict(schema) if isinstance(schema, Mapping) else schema
    recorded = recorded_schema(lake, raw) if known is None else None
    known = known if known is not None else recorded
    if known is None:
        known = infer_schema([reader for group in readers.values() for reader in group])
        if not known:
            raise ArgumentError(
                f"the columns of table {raw} are not known", code="argument.schema_needed",
                why="this is its first load, and the files have no rows to learn from", todo="pass a schema",
            )  # fmt: skip
        log.info("Learned the columns of table %s from its files: %s.", raw, json.dumps(known))
    texts = text_of(declare(known))
    policy = SchemaPolicy.of(on_schema_change)
    own = dict.fromkeys(readers, texts)
    if recorded is not None and on_schema_change is not None:
        own = {name: columns_to_read(texts, group, policy, table=raw) for name, group in readers.items()}
        texts = {name: kind for columns in (texts, *own.values()) for name, kind in columns.items()}
    segments = [
        _segment(
            partition,
            [reader.with_schema(own[partition]) for reader in group],
            own[partition],
            WriteMode(mode),
            batch_id,
        )
        for partition, group in readers.items()
    ]
    return load_segments(
        lake, raw, segments, texts=texts, mode=mode, keys=keys, evolve=policy, actor=actor, as_of=as_of
    )


def load_segments(
    lake: Lake,
    raw: str,
    segments: Sequence[Segment],
    *,
    texts: Mapping[str, str],
    mode: WriteMode | str,
    keys: Sequence[str],
    sorted_already: bool = False,
    evolve: SchemaPolicy | None = None,
    actor: Actor,
    as_of: datetime,
) -> CommitResult:
    """Commit segments of declared columns to a raw table, and keep the columns for later loads.

    :param raw: the raw table's own name (:func:`raw_name`).
    :param sorted_already: the rows come in the order they are kept in.
    :param evolve: what happens to columns that are not the table's; None: they are refused.
    :raises DataError, Superseded, ConflictError: as :func:`~airflow_provider_xops.lake.commit.commit`.
    """
    result = commit(
        lake,
        raw,
        segments,
        mode=WriteMode(mode),
        keys=tuple(keys),
        order_by=() if sorted_already else None,
        schema=pa.schema([(name, column.arrow) for name, column in declare(texts).items()]),
        evolve=evolve,
        actor=actor,
        as_of=as_of,
    )
    _record_schema(lake, result.record.table_uuid, texts)
    return result


def expand_partitions(spec: str | Sequence[str] | None) -> tuple[str, ...]:
    """Partition names from what a person writes.

    :param spec: one name; an inclusive range of dates ``2013-01-01..2013-03-31``; a list of these; None for
        ``("all",)``.
    :raises ArgumentError: ``argument.empty`` (nothing, or a template that rendered to nothing),
        ``argument.partitions`` (a range that is none).

    >>> expand_partitions("2013-01-30..2013-02-01")
    ('2013-01-30', '2013-01-31', '2013-02-01')
    """
    if spec is None:
        return (ALL,)
    items = [spec] if isinstance(spec, str) else list(spec)
    names: dict[str, None] = {}
    for item in items:
        text = str(item).strip() if item is not None else ""
        if text in ("", "None"):
            items = []
            break
        names.update(dict.fromkeys(_range(text) if ".." in text else (text,)))
    if not items:
        raise ArgumentError(
            "no partition is named",
            code="argument.empty",
            why="a template rendered to nothing, or the list is empty",
            todo="print the rendered template of the task and correct its variables",
        )
    return tuple(names)


def recorded_schema(lake: Lake, table: str) -> dict[str, str] | None:
    """The columns that the first load of ``table`` recorded, as type texts; None without such a table."""
    try:
        handle = open_table(lake, table)
    except NotFoundError:
        return None
    stored = json.loads(lake.storage.get(_schema_path(str(handle.metadata().id))) or b"{}")
    # Killed between a commit and its schema, or a column came later: the types are in the table, only the
    # zones of local times are not.
    held = text_of(declare(table_schema(handle)))
    first = {str(name): str(text) for name, text in stored.items() if name in held}
    return {**first, **{name: text for name, text in held.items() if name not in first}}


def raw_name(table: str) -> str:
    """The raw table of a published one.

    :raises ArgumentError: ``argument.table``.
    """
    check_table_name(table)
    if table.endswith(WAY_SUFFIXES):
        raise ArgumentError(
            f"{table} is the name of a table on the way to a published one",
            code="argument.table",
            why=f"{RAW_SUFFIX} is added for you; {', '.join(WAY_SUFFIXES)} are kept for that way",
            todo=f"pass {base_name(table)}",
        )
    return f"{table}{RAW_SUFFIX}"


def _open_all(
    sources: Mapping[str, str | Sequence[str]],
    format: str | None,
    delimiter: str | None,
    na_values: Sequence[str],
    open_file: OpenFile | None,
) -> dict[str, list[SourceReader]]:
    groups = {name: [uris] if isinstance(uris, str) else list(uris) for name, uris in sources.items()}
    empty = [name for name, uris in groups.items() if not uris]
    if not groups or empty:
        raise ArgumentError(
            "no source file is named" + (f" for partition {empty[0]}" if empty else ""),
            code="argument.empty",
            why="the list is empty, or a template rendered to nothing",
            todo="name at least one file",
        )
    return {
        name: [
            open_source(uri, format=format, delimiter=delimiter, na_values=na_values, open_file=open_file)
            for uri in uris
        ]
        for name, uris in groups.items()
    }


def _segment(
    partition: str,
    readers: Sequence[SourceReader],
    texts: Mapping[str, str],
    mode: WriteMode,
    batch_id: str | None,
) -> Segment:
    files = [[reader.source_file.name, reader.source_file.sha256] for reader in readers]
    how = [
        [reader.format.value, reader.dialect.delimiter, list(reader.dialect.na_values)] for reader in readers
    ]
    if mode is not WriteMode.REPLACE:
        batch_id = batch_id or f"sources:{digest_of(files)}"

    def data() -> Any:
        return pa.RecordBatchReader.from_batches(readers[0].schema, _chained(readers))

    return Segment(
        partition=partition,
        fingerprint=digest_of(["ingest", files, how, list(texts.items())]),
        data=data,
        batch_id=batch_id,
        sources=tuple(reader.source_file for reader in readers),
    )


def _chained(readers: Sequence[SourceReader]) -> Iterator[Any]:
    for reader in readers:
        yield from reader.reader()


def _record_schema(lake: Lake, table_uuid: str, texts: Mapping[str, str]) -> None:
    path = _schema_path(table_uuid)
    content = json.dumps(texts).encode()
    if not lake.storage.put_if_absent(path, content) and lake.storage.get(path) != content:
        # An explicit schema may declare other zones than the first one did: later loads without one keep to
        # the first.
        log.info("The recorded columns of this table stay as its first load declared them.")


def _schema_path(table_uuid: str) -> str:
    return f"{SCHEMAS}/{table_uuid}.json"


def _range(text: str) -> list[str]:
    first, _, last = text.partition("..")
    try:
        start, end = date.fromisoformat(first.strip()), date.fromisoformat(last.strip())
    except ValueError:
        raise ArgumentError(
            f"{text!r} is not a range of dates",
            code="argument.partitions",
            todo="write it as 2013-01-01..2013-03-31",
        ) from None
    days = (end - start).days + 1
    if not 1 <= days <= MAX_PARTITIONS:
        raise ArgumentError(
            f"the range {text!r} has {max(days, 0)} days",
            code="argument.partitions",
            why="it ends before it begins"
            if days < 1
            else f"one call takes at most {MAX_PARTITIONS} partitions",
            todo="correct its ends",
        )
    return [(start + timedelta(days=day)).isoformat() for day in range(days)]
