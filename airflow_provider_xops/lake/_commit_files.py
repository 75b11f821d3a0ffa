"""The files of one commit: rows read, cast, sorted, hashed, written, uploaded, and merged with what is there.

Private to :mod:`airflow_provider_xops.lake.commit`. Nothing here is visible to readers before the commit
names it.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake.transaction import AddAction

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake._commit_job import Change, Job, Ready, State, Work
from airflow_provider_xops.lake.data_files import FileSegment, files_dataset, own_schema
from airflow_provider_xops.lake.merge import keys_of, replaced_rows, without_rows
from airflow_provider_xops.lake.parquet_files import WrittenSegment, sorted_batches, write_segment
from airflow_provider_xops.lake.schema import (
    PARTITION_COLUMN,
    check_schema,
    file_schema,
    fit_batch,
    fitted_schema,
    to_delta_schema,
)
from airflow_provider_xops.records import WriteMode

__all__ = ["prepare"]

log = logging.getLogger(__name__)


def prepare(job: Job, state: State, pending: tuple[Work, ...], scratch: Path) -> Change:
    """Files written and uploaded, and what they replace. Files of an earlier look are used again."""
    schema = _write_all(job, state, pending, scratch)
    ready = [job.ready[item.key] for item in pending]
    new = () if state.schema is None else tuple(schema.field(name) for name in _new_names(schema, state))
    if new:  # the table gets its columns first; the files wait for it
        return Change(
            pending=pending, schema=schema, added=(), removed=(), adds=(), columns=new,
            metadata={**_metadata(job, ()), "token": f"{job.token}:columns"},
        )  # fmt: skip
    added = [file for one in ready for file in one.files]
    adds = [add for one in ready for add in one.adds]
    removed = [file for item in pending for file in state.files if _replaces(job, item, file)]
    if job.mode is WriteMode.MERGE:
        for item in pending:
            for old, merged in _merge(job, state, item, schema, scratch):
                removed += old
                added += merged.files
                adds += merged.adds
    return Change(
        pending=pending,
        schema=schema,
        added=tuple(added),
        removed=tuple(removed),
        adds=tuple(adds),
        metadata=_metadata(job, pending),
    )


def _write_all(job: Job, state: State, pending: tuple[Work, ...], scratch: Path) -> pa.Schema:
    """Every segment written with the same columns: the table's, and those that some of them add."""
    schema = state.schema
    known = [job.ready[item.key] for item in pending if item.key in job.ready]
    if schema is not None and job.policy.added == "evolve":
        for one in known:
            schema = pa.schema(
                [*schema, *(one.schema.field(name) for name in _new_names(one.schema, schema))]
            )
        if len(known) == len(pending) and _new_names(schema, state):
            # Somebody was faster than the new columns. They come first now; the rows, which are known to be
            # good, are written again behind them, so that on a busy table this happens once.
            return schema
    while True:
        for item in pending:
            found = job.ready.get(item.key)
            if found is None or not _fits(found, state, schema):
                found = job.ready[item.key] = _write_segment(job, state, item, schema, scratch)
            schema = found.schema
        assert schema is not None  # there is at least one segment
        if all(job.ready[item.key].schema.equals(schema) for item in pending):
            return schema  # else an earlier segment was written before a later one added a column


def _fits(one: Ready, state: State, schema: pa.Schema | None) -> bool:
    """Whether files of an earlier look (or an earlier segment) have the columns that are to be committed."""
    if schema is None or not one.schema.equals(schema):
        return False
    since = one.files[0].since
    if state.schema is not None and _new_names(schema, state):
        return since == _since(state, new=True)
    return bool(file_schema(schema, state.added, since).equals(schema))


def _new_names(schema: pa.Schema, known: State | pa.Schema) -> list[str]:
    have: Any = known.schema if isinstance(known, State) else known
    names = have.names
    return [name for name in schema.names if name not in names]


def _since(state: State, *, new: bool) -> int:
    """The first version that can hold a file: the next one, or with new columns the one after that."""
    return state.version + (2 if new else 1)


def _replaces(job: Job, item: Work, file: FileSegment) -> bool:
    if job.mode is WriteMode.REPLACE:
        return file.partition == item.segment.partition
    return file.key == item.key


def _write_segment(job: Job, state: State, item: Work, known: pa.Schema | None, scratch: Path) -> Ready:
    """Read, cast, sort, hash and write the rows of one segment, then upload its files."""
    reader = item.segment.data()
    subject = f"table {job.table}"
    if job.schema is not None:
        declared = to_delta_schema(job.schema)
        if job.policy.removed == "fill_null":  # what a segment does not have is missing in its rows
            declared = pa.schema([field for field in declared if field.name in reader.schema.names])
        check_schema(reader.schema, declared, subject=f"the declared schema of {subject}", types=False)
    found = reader.schema if job.schema is None else declared
    if known is None:
        schema = to_delta_schema(found)
    else:
        schema = fitted_schema(found, known, job.policy, keys=state.keys, subject=subject)
    order = state.keys if job.order_by is None else job.order_by
    _check_columns([*state.keys, *order], schema, job.table)
    folder = _new_folder(scratch)
    batches: Iterator[pa.RecordBatch] = (fit_batch(batch, schema) for batch in reader)
    if order:
        batches = sorted_batches(batches, schema, order, folder)
    written = write_segment(batches, schema, folder)
    keys = keys_of(written, state.keys, table=job.table) if job.mode is WriteMode.MERGE else None
    log.debug(
        "Wrote %d rows for partition %s of table %s, digest %s.",
        written.rows,
        item.segment.partition,
        job.table,
        written.digest[:16],
    )
    first = FileSegment(
        partition=item.segment.partition,
        batch16=item.batch16,
        fingerprint32=item.fingerprint32,
        digest=written.digest,
        since=_since(state, new=bool(state.schema is not None and _new_names(schema, state))),
        part=0,
        rows=0,
        size=0,
        unique="0" * 8,
    )
    return _upload(job, written, first, schema, keys)


def _upload(
    job: Job, written: WrittenSegment, like: FileSegment, schema: pa.Schema, keys: pa.Table | None = None
) -> Ready:
    """Move the files to their names in the table, where nobody sees them before the commit."""
    files, adds = [], []
    for part, local in enumerate(written.files):
        file = replace(like, digest=written.digest, part=part, rows=local.rows, size=local.size).renamed()
        # The file system's time, not as_of: vacuum compares it with the machine's clock.
        moved_at = int(local.path.stat().st_mtime * 1000)
        job.lake.storage.upload(local.path, f"{job.table}/{file.path}")
        # No minima and maxima: they are values of rows, and the log keeps them when vacuum has removed the
        # rows.
        job.uploaded.append(file)
        stats = json.dumps({"numRecords": local.rows, "nullCount": local.null_counts})
        files.append(file)
        adds.append(
            AddAction(file.path, file.size, {PARTITION_COLUMN: file.partition}, moved_at, True, stats)
        )
    return Ready(schema=schema, files=tuple(files), adds=tuple(adds), keys=keys)


def _merge(
    job: Job, state: State, item: Work, schema: pa.Schema, scratch: Path
) -> Iterator[tuple[list[FileSegment], Ready]]:
    """Other batches of the partition that lose rows to ``item``: their files now, and their new ones."""
    keys = job.ready[item.key].keys
    others: dict[tuple[str, str], list[FileSegment]] = {}
    for file in state.files:
        if file.partition == item.segment.partition and file.batch16 != item.batch16:
            others.setdefault(file.key, []).append(file)
    for files in others.values():
        # They stay what they were, with the columns that they have.
        own = own_schema(schema, files[0])
        dataset = files_dataset(job.lake, job.table, own, files)
        rows = replaced_rows(dataset, keys)
        if len(rows):
            folder = _new_folder(scratch)
            written = write_segment(without_rows(dataset, rows, own.names), own, folder)
            log.info("Merging: %d rows of an earlier batch are replaced.", len(rows))
            yield files, _upload(job, written, files[0], own)


def _metadata(job: Job, pending: Sequence[Work]) -> dict[str, Any]:
    sources = {source.uri + source.sha256: source for item in pending for source in item.segment.sources}
    note = job.facts["note"]
    return {
        "layout": 1,
        "token": job.token,
        "mode": job.mode.value,
        **job.facts,
        "note": note() if callable(note) else note,
        "segments": [
            {
                "partition": item.segment.partition,
                "batch_id": item.batch_id,
                "batch16": item.batch16,
                "fingerprint": item.segment.fingerprint,
                "fingerprint32": item.fingerprint32,
                "digest": job.ready[item.key].files[0].digest,
                "rows": sum(file.rows for file in job.ready[item.key].files),
            }
            for item in pending
        ],
        "sources": [
            {**asdict(source), "modified_at": source.modified_at.isoformat() if source.modified_at else None}
            for source in sources.values()
        ],
    }


def _check_columns(names: Sequence[str], schema: pa.Schema, table: str) -> None:
    missing = sorted(set(names) - set(schema.names))
    if missing:
        raise ArgumentError(
            f"table {table} has no columns {missing} to order or merge by",
            code="argument.column",
            todo=f"use some of {schema.names}",
        )


def _new_folder(scratch: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix="segment-", dir=scratch))
