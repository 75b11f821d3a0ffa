"""Compaction: the many small files that a stream of batches left, in few.

For the maintenance DAG and ``xops compact``. A writer that appends every few seconds (the prediction log of
an online server) leaves a file each time; readers and writers get slower with their number. Only files of
streams are touched: their batches are written once and never replaced, so nothing is looked up by their
names afterwards. Batches that may come again (a scored partition, a loaded day) keep their files.

Compaction runs beside every writer and can be killed at any instant: one commit takes the old files out and
puts the new ones in, so no reader ever sees a row twice or misses it. The old files stay for readers of
older versions until ``xops vacuum`` removes them.
"""

from __future__ import annotations

import json
import logging
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.schema import Schema
from deltalake.transaction import AddAction, RemoveAction

from airflow_provider_xops.errors import ArgumentError, ConflictError, DataError, LakeError
from airflow_provider_xops.lake._delta import delta_errors, read_errors, typed_batches
from airflow_provider_xops.lake.data_files import (
    FileSegment,
    files_dataset,
    short_batch,
    stream_fingerprint,
)
from airflow_provider_xops.lake.history import METADATA_KEY, commit_of
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.parquet_files import WrittenSegment, write_segment
from airflow_provider_xops.lake.schema import PARTITION_COLUMN, cast_batch
from airflow_provider_xops.lake.tables import (
    adopted_uri,
    open_table,
    segments_of,
    table_info,
    table_schema,
    with_partition_column,
)
from airflow_provider_xops.records import Actor, digest_of

__all__ = ["Compacted", "compact"]

log = logging.getLogger(__name__)

ATTEMPTS = 8
LEAST_FILES = 8
# Larger files are as they should be.
SMALL_BYTES = 32 * 1024 * 1024
DELTA_RETRIES = 100


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """What a compaction did (or would do): which partitions, and how many files became how many."""

    table: str
    partitions: tuple[str, ...]
    files_removed: int
    files_added: int
    rows: int
    dry_run: bool = False


def compact(
    lake: Lake,
    table: str,
    *,
    partitions: Sequence[str] | None = None,
    least_files: int = LEAST_FILES,
    small_bytes: int = SMALL_BYTES,
    dry_run: bool = False,
    actor: Actor,
    as_of: datetime,
) -> Compacted:
    """Put the small files of streams together, partition by partition, one commit each.

    :param partitions: only these; None: all.
    :param least_files: a partition with fewer small files is left as it is.
    :param small_bytes: a file of this size or more is left as it is.
    :param dry_run: only tell what would be done.
    :raises ArgumentError: ``argument.compaction``. :raises NotFoundError: there is no such table.
    :raises ConflictError: other writers removed the same files eight times in a row.

    >>> compact(lake, "delay_log", actor=actor, as_of=now).files_added  # doctest: +SKIP
    1

    What it does not do: rows are in the order of their commits, and no row is removed. A version before it
    stays readable until its files are vacuumed.
    """
    if as_of.tzinfo is None:
        raise DataError(
            "as_of has no time zone", code="data.naive_timestamp", todo="pass an aware UTC datetime"
        )
    if least_files < 2 or small_bytes < 1:
        raise ArgumentError(
            f"cannot compact {table}: {least_files} files at least, small below {small_bytes} bytes",
            code="argument.compaction",
            todo="put 2 or more files together, and call some size small",
        )
    wanted = _crowded(lake, table, partitions, least_files, small_bytes)
    if dry_run:
        return Compacted(
            table=table, partitions=tuple(wanted), files_removed=sum(map(len, wanted.values())),
            files_added=len(wanted), rows=sum(each.rows for files in wanted.values() for each in files),
            dry_run=True,
        )  # fmt: skip
    if wanted:
        lake.storage.check_writable()
    done: list[str] = []
    removed = added = rows = 0
    for partition in wanted:
        found = _Attempt(lake, table, partition, small_bytes, actor, as_of).make(least_files)
        if found is not None:
            done.append(partition)
            removed, added, rows = removed + found[0], added + found[1], rows + found[2]
    log.info("Compacted %s: %d files of %d partitions became %d.", table, removed, len(done), added)
    return Compacted(table=table, partitions=tuple(done), files_removed=removed, files_added=added, rows=rows)


def _crowded(
    lake: Lake, table: str, partitions: Sequence[str] | None, least_files: int, small_bytes: int
) -> dict[str, list[FileSegment]]:
    if adopted_uri(lake, table) is not None:
        raise LakeError(
            f"{table} is adopted, so this lake does not change its files",
            code="lake.adopted",
            todo="compact it where it is written",
        )
    handle = open_table(lake, table)
    names = sorted({file.partition for file in segments_of(handle)})
    found = {
        name: _small(handle, name, small_bytes) for name in names if partitions is None or name in partitions
    }
    return {name: files for name, files in found.items() if len(files) >= least_files}


def _small(handle: DeltaTable, partition: str, small_bytes: int) -> list[FileSegment]:
    """The small files of streams in a partition, in the order of their commits."""
    there = [each for each in segments_of(handle) if each.partition == partition]
    # A batch in several files goes as a whole or not at all.
    left = {each.key for each in there if not each.of_stream or each.size >= small_bytes}
    return sorted(
        (each for each in there if each.key not in left),
        key=lambda each: (each.since, each.batch16, each.part),
    )


@dataclass
class _Attempt:
    """One partition's compaction."""

    lake: Lake
    table: str
    partition: str
    small_bytes: int
    actor: Actor
    as_of: datetime

    def make(self, least_files: int) -> tuple[int, int, int] | None:
        """Files removed, files added and rows; None if there is nothing to do (any more)."""
        for _ in range(ATTEMPTS):
            handle: Any = open_table(self.lake, self.table)
            files = _small(handle, self.partition, self.small_bytes)
            if len(files) < least_files:
                return None
            with self.lake.storage.scratch() as scratch:
                written = self._write(table_schema(handle), files, scratch)
                if written.rows != sum(file.rows for file in files):
                    raise LakeError(
                        f"files of {self.table} hold another number of rows than its log says",
                        code="lake.damaged_file",
                        todo=f"run `xops lake verify {self.table}`",
                    )
                added = self._upload(handle, written, files)
                if self._commit(handle, written, files, added):
                    return len(files), len(added), written.rows
            log.info("Another writer changed table %s meanwhile; looking again.", self.table)
        raise ConflictError(
            f"could not compact partition {self.partition} of {self.table}: others won {ATTEMPTS} times",
            code="conflict.commit",
            todo="run it again when they are done",
        )

    def _write(self, schema: pa.Schema, files: Sequence[FileSegment], scratch: Path) -> WrittenSegment:
        folder = Path(tempfile.mkdtemp(prefix="compact-", dir=scratch))
        return write_segment(self._rows(schema, files), schema, folder)

    def _rows(self, schema: pa.Schema, files: Sequence[FileSegment]) -> Iterator[pa.RecordBatch]:
        what = f"cannot read {self.table}"
        for file in files:
            with read_errors(what):
                batches = files_dataset(self.lake, self.table, schema, [file]).scanner(columns=schema.names)
            for batch in typed_batches(batches.to_batches(), what):
                yield cast_batch(batch, schema)

    def _upload(
        self, handle: Any, written: WrittenSegment, files: Sequence[FileSegment]
    ) -> list[tuple[FileSegment, AddAction]]:
        like = FileSegment(
            partition=self.partition, batch16=short_batch(f"compact:{uuid.uuid4().hex}"), part=0,
            fingerprint32=stream_fingerprint(_fingerprint(files)), digest=written.digest,
            since=handle.version() + 1, rows=0, size=0, unique="0" * 8,
        )  # fmt: skip
        added = []
        for part, local in enumerate(written.files):
            file = replace(like, part=part, rows=local.rows, size=local.size).renamed()
            # The file system's time, not as_of: vacuum compares it with the machine's clock.
            moved_at = int(local.path.stat().st_mtime * 1000)
            self.lake.storage.upload(local.path, f"{self.table}/{file.path}")
            stats = json.dumps({"numRecords": local.rows, "nullCount": local.null_counts})
            values = {PARTITION_COLUMN: self.partition}
            added.append((file, AddAction(file.path, file.size, values, moved_at, True, stats)))
        return added

    def _commit(
        self,
        handle: Any,
        written: WrittenSegment,
        files: Sequence[FileSegment],
        added: Sequence[tuple[FileSegment, AddAction]],
    ) -> bool:
        """One transaction; False if another compaction took some of the files, or the columns changed."""
        token, first = uuid.uuid4().hex, added[0][0]
        removed_at = max(add.modification_time for _, add in added)
        removals = [
            RemoveAction(file.path, True, removed_at, file.size, {PARTITION_COLUMN: file.partition})
            for file in files
        ]
        properties = CommitProperties(
            custom_metadata={METADATA_KEY: json.dumps(self._metadata(handle, token, written, files, first))},
            max_commit_retries=DELTA_RETRIES,
            # Of two compactions that take the same files one must fail: they share a fence.
            app_transactions=[Transaction(f"xops:compact/{self.partition}", handle.version() + 1)],
        )
        with delta_errors(f"cannot compact table {self.table}"):
            try:
                handle.create_write_transaction(
                    [*removals, *(add for _, add in added)],
                    mode="append",
                    schema=Schema.from_arrow(with_partition_column(table_schema(handle))),
                    partition_by=[PARTITION_COLUMN],
                    commit_properties=properties,
                )
            except CommitFailedError:
                # Told that it lost, it may have won: the answer to the client's first try can be lost.
                if commit_of(self.lake, self.table, token, after=handle.version()) is None:
                    for file, _ in added:
                        self.lake.storage.delete(f"{self.table}/{file.path}")
                    return False
        return True

    def _metadata(
        self, handle: Any, token: str, written: WrittenSegment, files: Sequence[FileSegment],
        first: FileSegment,
    ) -> dict[str, Any]:  # fmt: skip
        info = table_info(handle)
        assert info is not None  # its files have names of ours
        return {
            "layout": 1, "token": token, "mode": info.mode.value,
            "parents": [], "parent_partitions": [], "parent_records": [], "sources": [],
            "note": f"{len(files)} files put together",
            "produced_by": {**asdict(self.actor.producer), "kind": self.actor.producer.kind.value},
            "recorded_at": self.as_of.isoformat(), "key": self.actor.idempotency_key,
            "fence": self.actor.fence,
            "segments": [
                {
                    "partition": self.partition, "batch_id": f"compact:{token}", "batch16": first.batch16,
                    "fingerprint": _fingerprint(files), "fingerprint32": first.fingerprint32,
                    "digest": written.digest, "rows": written.rows,
                }
            ],
        }  # fmt: skip


def _fingerprint(files: Sequence[FileSegment]) -> str:
    return digest_of(sorted([each.batch16, each.fingerprint32, each.digest] for each in files))
