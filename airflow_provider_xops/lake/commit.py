"""Exactly-once commits: a write is what it is, not when it ran.

For every operator and domain function that writes a table. A :class:`Segment` says which partition (or
batch) it is and what it is made from; :func:`commit` looks whether the table already holds that, and only
if not, writes files, and commits them in one Delta transaction. Killed anywhere, it is simply run again: a
commit that was made is found, one that was not is made.

Three things decide, and all are read and checked through one table handle:

* the *input fingerprint* in the names of the active files: the same one is never committed twice;
* the *fence* (an application transaction of the batch): an attempt older than one that has committed raises
  ``Superseded``;
* Delta's own optimistic concurrency: of racing attempts one wins, the others look again.

What it does not do: an attempt that finds its work done leaves the fence as it is, because raising it would
be a commit.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from deltalake import CommitProperties, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.schema import Field, Schema
from deltalake.transaction import RemoveAction, create_table_with_add_actions

from airflow_provider_xops.errors import ArgumentError, ConflictError, LakeError, Superseded
from airflow_provider_xops.lake._commit_files import prepare
from airflow_provider_xops.lake._commit_job import Change, Job, Segment, State, Work, facts_of, plan
from airflow_provider_xops.lake._delta import delta_errors
from airflow_provider_xops.lake.data_files import FileSegment
from airflow_provider_xops.lake.history import (
    METADATA_KEY,
    commit_of,
    find_commit,
    record_of,
    stored_record,
)
from airflow_provider_xops.lake.lake import EVOLVING_LAYOUT
from airflow_provider_xops.lake.schema import PARTITION_COLUMN, SINCE_KEY, SchemaPolicy, added_columns
from airflow_provider_xops.lake.tables import (
    TABLE_PROPERTIES,
    TableInfo,
    adopted_uri,
    check_info,
    open_table,
    own_table,
    ref_of,
    segments_of,
    table_schema,
    with_partition_column,
)
from airflow_provider_xops.records import Actor, DatasetRef, DatasetVersion, WriteMode

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake

__all__ = ["CommitResult", "Segment", "commit"]

log = logging.getLogger(__name__)

# Losing a race to *other* batches is settled inside Delta's own retries; these are races for the same batch
# (settled at the second look) or, when merging, for the same partition (each look lets at least one writer
# through).
MAX_RACES = 32
DELTA_RETRIES = 100


@dataclass(frozen=True)
class CommitResult:
    """The version that holds the data; ``reused``: it was there already and nothing was committed."""

    record: DatasetVersion
    reused: bool


def commit(
    lake: Lake,
    table: str,
    segments: Sequence[Segment],
    *,
    mode: WriteMode = WriteMode.REPLACE,
    keys: Sequence[str] = (),
    order_by: Sequence[str] | None = None,
    schema: pa.Schema | None = None,
    evolve: SchemaPolicy | Mapping[str, str] | None = None,
    parents: Sequence[DatasetRef] = (),
    parent_partitions: Sequence[Sequence[str] | None] = (),
    parent_records: Sequence[str] = (),
    actor: Actor,
    as_of: datetime,
    note: str | Callable[[], str] = "",
    evidence: bool = True,
) -> CommitResult:
    """Make ``table`` hold ``segments``, once.

    :param segments: at most one for each partition and batch; those the table already holds are left alone.
    :param mode: REPLACE: a segment is its whole partition. APPEND: a segment is its batch's rows of the
        partition. MERGE: like append, and rows of other batches of the partition with the same ``keys`` are
        removed. Fixed by the first commit.
    :param keys: columns that identify a row; MERGE needs them. Fixed by the first commit; empty means the
        table's.
    :param order_by: sort rows by these columns (default: by ``keys``; with neither, the order they come in
        is kept).
    :param schema: declared column types; values are cast to them. Without it the data's own types must be
        the table's.
    :param evolve: what happens to data of other columns than the table's; None: they are refused.
    :param parents: dataset versions it is made from.
    :param parent_partitions: the partitions read of each parent, in their order (None: all of it).
    :param parent_records: ids of other evidence it rests on, such as the report that let it pass.
    :param as_of: the time to record (UTC).
    :param note: for the record; a function is asked when the rows have been read.
    :param evidence: write the version's record beside the table; False for a writer of many small commits:
        the record is then rebuilt from the table's log whenever somebody asks for it.
    :raises ArgumentError: no segments, a batch without an id, a name that cannot be one.
    :raises DataError: the data do not fit the table (``data.schema_mismatch``, ``data.cast``,
        ``data.naive_timestamp``, ``data.mode_mismatch``, ``data.duplicate_keys``, ``data.null_key``, ...):
        nothing was committed.
    :raises Superseded: an attempt with a higher fence has committed the batch from other input.
    :raises ConflictError: too many races lost; try again.

    >>> rows = pa.table({"flight": [1, 2]})
    >>> segment = Segment("2013-01-01", "sha256:5f2a", rows.to_reader)
    >>> commit(lake, "flights", [segment], actor=actor, as_of=as_of).record.rows  # doctest: +SKIP
    2
    """
    job = Job(
        lake=lake,
        table=table,
        mode=WriteMode(mode),
        keys=tuple(keys),
        work=plan(table, segments, WriteMode(mode)),
        order_by=None if order_by is None else tuple(order_by),
        schema=schema,
        actor=actor,
        policy=SchemaPolicy.of(evolve),
        facts=facts_of(parents, parent_partitions, parent_records, actor, as_of, note),
        evidence=evidence,
    )
    state = _read_state(job)
    pending = _undone(job, state)
    if not pending:
        return _existing(job, state)
    lake.storage.check_writable()
    with lake.storage.scratch() as scratch:
        for _ in range(MAX_RACES):
            try:
                change = prepare(job, state, pending, scratch)
            except BaseException:  # a bad source, say: nothing was committed, so nothing is left behind
                _discard(job, keep=())
                raise
            if change.columns:
                _add_columns(job, state, change)
            # Told that it lost, it may have won: an answer can be lost on the way, and the client's own retry
            # then finds the name taken. The log knows.
            elif _commit_files(job, state, change) or _landed(job, state) is not None:
                return _finish(job, state, change)
            else:
                log.info("Another writer changed table %s meanwhile; looking again.", table)
            try:
                state = _read_state(job)
                pending = _undone(job, state)
            except Superseded:
                _discard(job, keep=())
                raise
            if not pending:
                _discard(job, keep=())
                return _existing(job, state)
    raise ConflictError(
        f"table {table} was changed by other writers {MAX_RACES} times while this commit was made",
        code="conflict.commit",
        todo="try again, or let fewer tasks write to one partition at a time",
        context={"table": table},
    )


def _read_state(job: Job) -> State:
    """Open the table: the one handle through which this look decides and commits."""
    handle = own_table(job.lake, job.table)
    if handle is None:
        if adopted_uri(job.lake, job.table) is not None:
            raise LakeError(
                f"table {job.table} is adopted",
                code="lake.adopted",
                why="adopted tables are only read",
                todo="write to a table of another name",
            )
        if job.mode is WriteMode.MERGE and not job.keys:
            raise ArgumentError(
                f"table {job.table} would merge without keys",
                code="argument.keys",
                todo="name the columns that identify a row",
            )
        return State(keys=job.keys)
    info = check_info(handle, job.table, mode=job.mode, keys=job.keys)
    return State(
        handle=handle,
        files=tuple(segments_of(handle)),
        schema=table_schema(handle),
        keys=info.keys,
        added=added_columns(pa.schema(handle.schema().to_arrow())),
    )


def _undone(job: Job, state: State) -> tuple[Work, ...]:
    """The work that the table does not hold yet, if this attempt may still do it."""
    held = {(*file.key, file.fingerprint32) for file in state.files}
    pending = tuple(item for item in job.work if (*item.key, item.fingerprint32) not in held)
    for item in pending if state.handle is not None else ():
        fence = state.handle.transaction_version(item.fence_id)
        if fence is not None and fence > job.actor.fence:
            raise Superseded(
                f"a newer attempt has written partition {item.segment.partition} of table {job.table}",
                code="superseded.commit",
                why=f"its fence is {fence}, this attempt's {job.actor.fence}",
                todo="nothing: the newer attempt's data are in the table",
                context={"table": job.table, "partition": item.segment.partition, "fence": fence},
            )
    return pending


def _add_columns(job: Job, state: State, change: Change) -> None:
    """Give the table the columns that its new rows need, by a commit of its own, before theirs.

    Delta Lake changes a table's columns only in a commit without files, so two commits it is. A table with a
    column and no rows of it is as good as any: killed in between, the next attempt finds the column there.
    Readers know from the version in the column's metadata which files have it, so that version must be right:
    the commit is not retried behind another one. Whoever lost looks again.
    """
    if job.lake.info.layout_version < EVOLVING_LAYOUT:
        raise LakeError(
            f"table {job.table} cannot get new columns in a lake of layout {job.lake.info.layout_version}",
            code="lake.layout_older",
            why=f"a reader that knows no later layout would misread it; layout {EVOLVING_LAYOUT} is needed",
            todo=f"upgrade every worker, then run `xops lake migrate {job.lake.uri}`",
        )
    version = state.version + 1
    fields = [
        Field(field.name, field.type, nullable=True, metadata={SINCE_KEY: str(version)})
        for field in Schema.from_arrow(pa.schema(change.columns)).fields
    ]
    names = ", ".join(field.name for field in fields)
    with delta_errors(f"cannot add columns to table {job.table}"):
        try:
            state.handle.alter.add_columns(
                fields,
                commit_properties=CommitProperties(
                    custom_metadata={METADATA_KEY: json.dumps(change.metadata)}, max_commit_retries=0
                ),
            )
        except CommitFailedError:
            log.info("Another writer changed table %s meanwhile; looking again.", job.table)
            return
    log.info("Table %s has new columns from version %d on: %s.", job.table, version, names)


def _commit_files(job: Job, state: State, change: Change) -> bool:
    """One Delta transaction; False if another writer was faster and this one has to look again."""
    names = {item.fence_id for item in change.pending}
    if (
        job.mode is WriteMode.MERGE
    ):  # other batches' rows of the partition were read: no two may merge into it at once
        names |= {f"xops:{item.segment.partition}" for item in change.pending}
    properties = CommitProperties(
        custom_metadata={METADATA_KEY: json.dumps(change.metadata)},
        # Making a table is not retried: a retry would make it a second time, on top of the winner's.
        max_commit_retries=DELTA_RETRIES if state.handle is not None else 0,
        app_transactions=[Transaction(name, job.actor.fence) for name in sorted(names)],
    )
    schema = Schema.from_arrow(with_partition_column(change.schema))
    with delta_errors(f"cannot commit to table {job.table}"):
        if state.handle is None:
            return _create(job, state, change, schema, properties)
        removed_at = max(add.modification_time for add in change.adds)
        removals = [
            RemoveAction(file.path, True, removed_at, file.size, {PARTITION_COLUMN: file.partition})
            for file in change.removed
        ]
        try:
            state.handle.create_write_transaction(
                [*removals, *change.adds],
                mode="append",
                schema=schema,
                partition_by=[PARTITION_COLUMN],
                commit_properties=properties,
            )
        except CommitFailedError:
            return False
    return True


def _create(job: Job, state: State, change: Change, schema: Schema, properties: CommitProperties) -> bool:
    """Make the table and commit its first data in one transaction: no table without data is ever seen."""
    info = TableInfo(mode=job.mode, keys=state.keys)
    try:
        create_table_with_add_actions(
            job.lake.storage.table_uri(job.table),
            schema,
            list(change.adds),
            mode="error",
            partition_by=[PARTITION_COLUMN],
            name=job.table,
            description=info.to_description(),
            configuration=TABLE_PROPERTIES,
            storage_options=job.lake.storage.delta_options(),
            commit_properties=properties,
        )
    except DeltaError:
        if _read_state(job).handle is None:
            raise
        return False
    return True


def _finish(job: Job, state: State, change: Change) -> CommitResult:
    """Find out which version it became, and record it."""
    version = _locate(job, state)
    _discard(job, keep=change.added)
    removed = set(change.removed)
    files = [*(file for file in state.files if file not in removed), *change.added]
    ref = None
    if (
        version == state.version + 1 and state.handle is not None
    ):  # nobody in between: no need to open the table again
        ref = replace(ref_of(job.lake, job.table, state.handle), version=version)
    else:
        handle = open_table(job.lake, job.table, version)
        ref, files = ref_of(job.lake, job.table, handle), segments_of(handle)
    record = record_of(ref, files, change.metadata)
    _put_evidence(job, record)
    level = logging.INFO if job.evidence else logging.DEBUG
    log.log(level, "Committed %s: %d rows in %d partitions.", ref, record.rows, len(record.partitions))
    return CommitResult(record, reused=False)


def _locate(job: Job, state: State) -> int:
    """The version under which this call's commit is in the log."""
    version = _landed(job, state)
    if version is None:
        raise LakeError(
            f"the commit to table {job.table} is not in its log",
            code="lake.history_missing",
            why="another program removed log files",
            todo="run the task again",
        )
    return version


def _landed(job: Job, state: State) -> int | None:
    """The same; None if the log does not have it."""
    return commit_of(job.lake, job.table, job.token, after=state.version)


def _existing(job: Job, state: State) -> CommitResult:
    """The newest version that holds some of this work. Evidence lost by a killed attempt is written now."""
    newest: DatasetVersion | None = None
    wanted = {(*item.key, item.fingerprint32): item for item in job.work}
    found = {(*file.key, file.fingerprint32): file for file in reversed(state.files)}
    current = ref_of(job.lake, job.table, state.handle)
    seen: set[int] = set()
    commits: dict[int, dict[str, Any] | None] = {}
    for identity in wanted:
        version, metadata = find_commit(
            job.lake, state.handle, table=job.table, file=found[identity], known=commits
        )
        if version in seen:
            continue
        seen.add(version)
        ref = replace(current, version=version)
        record = stored_record(job.lake, ref)
        if record is None:
            files = (
                state.files
                if version == state.version
                else segments_of(open_table(job.lake, job.table, version))
            )
            record = record_of(ref, files, metadata)
            _put_evidence(job, record)
        if newest is None or record.version > newest.version:
            newest = record
    assert newest is not None  # there is at least one segment
    log.info("Table %s already holds this: %s.", job.table, newest.ref)
    return CommitResult(newest, reused=True)


def _put_evidence(job: Job, record: DatasetVersion) -> None:
    if job.evidence:
        job.lake.evidence.put(record)


def _discard(job: Job, *, keep: Sequence[FileSegment]) -> None:
    """Remove files of this call that no commit names. Those of a killed call are vacuum's."""
    kept = set(keep)
    for file in job.uploaded:
        if file not in kept:
            job.lake.storage.delete(f"{job.table}/{file.path}")
