"""One commit, before anything is written: its segments, their names, and the state it is decided against.

Private to :mod:`airflow_provider_xops.lake.commit`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from deltalake.transaction import AddAction

from airflow_provider_xops.errors import ArgumentError, DataError
from airflow_provider_xops.lake.data_files import (
    FileSegment,
    check_partition,
    short_batch,
    short_fingerprint,
    stream_fingerprint,
)
from airflow_provider_xops.lake.schema import SchemaPolicy
from airflow_provider_xops.lake.tables import check_table_name
from airflow_provider_xops.records import Actor, DatasetRef, SourceFile, WriteMode

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake

__all__ = ["Change", "Job", "Ready", "Segment", "State", "Work", "batch_fence", "facts_of", "plan"]


@dataclass(frozen=True)
class Segment:
    """What one batch has in one partition.

    :param partition: the partition's name ("all" where the table has none).
    :param fingerprint: identifies the *input*: the same fingerprint is the same data.
    :param data: called only if the segment has to be written; gives its rows.
    :param batch_id: identifies the batch. Replace mode needs none (the partition is the batch).
    :param sources: the files the rows were read from, for the record.
    :param stream: name of an endless row of batches that one writer numbers, each number the fence of its
        commit: the table then keeps one fence for all of them, and not one for each, and their files may be
        compacted (:mod:`airflow_provider_xops.lake.compaction`). A batch of a stream is never replaced.
    """

    partition: str
    fingerprint: str
    data: Callable[[], pa.RecordBatchReader] = field(repr=False)
    batch_id: str | None = None
    sources: tuple[SourceFile, ...] = ()
    stream: str | None = None


@dataclass(frozen=True, kw_only=True)
class Work:
    """A segment with its names. ``fence_id``: the application transaction under which its fence is kept."""

    segment: Segment
    batch_id: str
    batch16: str
    fingerprint32: str
    fence_id: str

    @property
    def key(self) -> tuple[str, str]:
        return self.segment.partition, self.batch16


@dataclass(frozen=True, kw_only=True)
class Job:
    """One call of ``commit``. ``ready`` and ``uploaded`` fill up, so that a lost race wastes nothing.

    ``evidence``: whether the version's record is written beside the table.
    """

    lake: Lake
    table: str
    mode: WriteMode
    keys: tuple[str, ...]
    work: tuple[Work, ...]
    order_by: tuple[str, ...] | None
    schema: pa.Schema | None
    actor: Actor
    facts: dict[str, Any]
    evidence: bool = True
    policy: SchemaPolicy = field(default_factory=SchemaPolicy)
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    ready: dict[tuple[str, str], Ready] = field(default_factory=dict)
    uploaded: list[FileSegment] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class State:
    """The table as one handle sees it (``handle`` is None before the first commit).

    ``added``: the columns that it got later, with the version that added each.
    """

    handle: Any = None
    files: tuple[FileSegment, ...] = ()
    schema: pa.Schema | None = None
    keys: tuple[str, ...] = ()
    added: Mapping[str, int] = field(default_factory=dict)

    @property
    def version(self) -> int:
        return -1 if self.handle is None else int(self.handle.version())


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A segment's uploaded files with the actions that add them, and its keys when merging."""

    schema: pa.Schema
    files: tuple[FileSegment, ...]
    adds: tuple[AddAction, ...]
    keys: pa.Table | None = None


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is going to be committed. With ``columns``, they have to be added to the table before."""

    pending: tuple[Work, ...]
    schema: pa.Schema
    added: tuple[FileSegment, ...]
    removed: tuple[FileSegment, ...]
    adds: tuple[AddAction, ...]
    metadata: dict[str, Any]
    columns: tuple[pa.Field, ...] = ()


def plan(table: str, segments: Sequence[Segment], mode: WriteMode) -> tuple[Work, ...]:
    """The segments with their names.

    :raises ArgumentError: there are none, two are for the same place, or one lacks what its mode needs.
    """
    check_table_name(table)
    if not segments:
        raise ArgumentError(
            f"nothing to commit to table {table}", code="argument.empty", todo="pass at least one segment"
        )
    work = [_work(table, segment, mode) for segment in segments]
    names = [item.segment.partition if mode is not WriteMode.APPEND else item.key for item in work]
    if len(set(names)) < len(names):
        raise ArgumentError(
            f"one commit to table {table} has two segments for the same place",
            code="argument.duplicate_segment",
            why="a partition"
            + (" and batch" if mode is WriteMode.APPEND else "")
            + " can be written once in a commit",
            todo="put their rows together, or commit one after the other",
        )
    return tuple(work)


def _work(table: str, segment: Segment, mode: WriteMode) -> Work:
    partition = check_partition(segment.partition)
    if not segment.fingerprint:
        raise ArgumentError(
            f"partition {partition} of table {table} has no input fingerprint",
            code="argument.fingerprint",
            todo="pass a digest of what the rows are made from",
        )
    batch_id = segment.batch_id
    if mode is WriteMode.REPLACE:
        batch_id = batch_id or f"table:{table}/partition:{partition}"
        fence_id = f"xops:{partition}"  # whoever writes it, the partition is what is replaced
    elif not batch_id:
        raise ArgumentError(
            f"a batch for table {table} has no batch_id",
            code="argument.batch_id",
            why=f"in mode {mode.value} nothing else tells a repeated batch from a new one",
            todo="name it by what it is made from: source names and checksums, or parent versions",
        )
    else:
        fence_id = batch_fence(partition, segment.stream or batch_id)
    return Work(
        segment=segment,
        batch_id=batch_id,
        batch16=short_batch(batch_id),
        fence_id=fence_id,
        fingerprint32=(stream_fingerprint if segment.stream else short_fingerprint)(segment.fingerprint),
    )


def batch_fence(partition: str, batch_id: str) -> str:
    """The application transaction that keeps the fence of a batch, or of a stream of batches."""
    return f"xops:{partition}/{batch_id}"


def facts_of(
    parents: Sequence[DatasetRef],
    parent_partitions: Sequence[Sequence[str] | None],
    parent_records: Sequence[str],
    actor: Actor,
    as_of: datetime,
    note: str | Callable[[], str],
) -> dict[str, Any]:
    """What the commit's metadata say besides its segments, as JSON types (``note`` when it is called)."""
    if as_of.tzinfo is None:
        raise DataError(
            "as_of has no time zone", code="data.naive_timestamp", todo="pass an aware UTC datetime"
        )
    return {
        "parents": [asdict(parent) for parent in parents],
        "parent_partitions": [None if names is None else list(names) for names in parent_partitions],
        "parent_records": list(parent_records),
        "note": note,
        "produced_by": {**asdict(actor.producer), "kind": actor.producer.kind.value},
        "recorded_at": as_of.isoformat(),
        "key": actor.idempotency_key,
        "fence": actor.fence,
    }
