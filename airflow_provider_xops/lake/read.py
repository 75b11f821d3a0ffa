"""Reading versions of tables: rows in canonical order, digests, and the proof that both agree.

For every room that consumes data. Everything takes a :class:`~airflow_provider_xops.records.DatasetRef`, so
what is read is one version of one table for good, whatever is committed meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as pads

from airflow_provider_xops.errors import ArgumentError, LakeError, NotFoundError
from airflow_provider_xops.lake._delta import read_errors, typed_batches
from airflow_provider_xops.lake.data_files import FileSegment, files_dataset, own_schema
from airflow_provider_xops.lake.digest import table_digest, version_digest
from airflow_provider_xops.lake.history import partition_digests_of, stored_record, version_record
from airflow_provider_xops.lake.schema import PARTITION_COLUMN, cast_batch
from airflow_provider_xops.lake.tables import (
    open_table,
    ref_of,
    segments_of,
    table_info,
    table_schema,
    with_partition_column,
)
from airflow_provider_xops.records import DatasetRef, DatasetVersion

if TYPE_CHECKING:
    import pandas as pd

    from airflow_provider_xops.lake.lake import Lake

__all__ = [
    "WHOLE",
    "adopted_dataset",
    "arrow_dataset",
    "content_digest",
    "count_rows",
    "partition_digests",
    "partitions",
    "read_pandas",
    "rebuild_version_record",
    "scan",
    "schema_of",
    "verify_version",
]

# The one partition of a table that has none; an adopted table counts as one such partition.
WHOLE = "all"


def scan(
    lake: Lake,
    ref: DatasetRef,
    *,
    partitions: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    filter: Any = None,
    with_partition: bool = False,
    batch_rows: int | None = None,
) -> pa.RecordBatchReader:
    """The rows of ``ref``, streamed in canonical order: partition, batch, as they were written.

    :param partitions: only these; None: all.
    :param columns: only these, in this order; None: all.
    :param filter: an expression of :mod:`pyarrow.compute`; rows for which it is true. It may use the
        partition column.
    :param with_partition: add the partition as the last column, ``_xops_partition``.
    :param batch_rows: at most so many rows at a time, and nothing read ahead but the rest of their row
        group, for a reader whose memory must not grow with the table. By default much is read ahead.
    :raises NotFoundError: no such version, or no such partition in it.
    :raises ArgumentError: ``argument.column``: no such column.
    :raises LakeError: a data file is gone or damaged (``lake.missing_file``, ``lake.damaged_file``), also
        while the rows are read; :raises UnavailableError: the storage did not answer.

    >>> scan(lake, ref, columns=["carrier"]).read_all()  # doctest: +SKIP
    """
    view = _View(lake, ref)
    names = list(view.schema.names if columns is None else columns)
    missing = sorted(set(names) - {*view.schema.names, PARTITION_COLUMN})
    if missing:
        raise ArgumentError(
            f"{ref} has no columns {missing}", code="argument.column", todo=f"use some of {view.schema.names}"
        )
    if with_partition and PARTITION_COLUMN not in names:
        names.append(PARTITION_COLUMN)
    dataset, target = view.dataset(partitions), pa.schema([view.full_schema.field(name) for name in names])
    # Bound here, where nothing is read yet: a filter that does not fit the columns is the caller's mistake.
    scanner = dataset.scanner(columns=names, filter=filter)
    what = f"cannot read {ref}"
    with read_errors(what):
        batches = (
            scanner.to_batches() if batch_rows is None else _by_row_group(dataset, names, filter, batch_rows)
        )
    return pa.RecordBatchReader.from_batches(
        target, (cast_batch(batch, target) for batch in typed_batches(batches, what))
    )


def arrow_dataset(lake: Lake, ref: DatasetRef, partitions: Sequence[str] | None = None) -> pads.Dataset:
    """An Arrow dataset over the files of ``ref``, for engines that scan by themselves, in any order.

    Its columns are the table's and the partition column.

    :raises NotFoundError: no such version, or no such partition in it.
    """
    return _View(lake, ref).dataset(partitions)


def read_pandas(
    lake: Lake,
    ref: DatasetRef,
    *,
    partitions: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    filter: Any = None,
    with_partition: bool = False,
) -> pd.DataFrame:
    """The rows of :func:`scan` as a data frame, in memory."""
    frame: pd.DataFrame = scan(
        lake, ref, partitions=partitions, columns=columns, filter=filter, with_partition=with_partition
    ).read_pandas()
    return frame


def schema_of(lake: Lake, ref: DatasetRef) -> pa.Schema:
    """The user's columns of ``ref``, without the partition column."""
    return _View(lake, ref).schema


def partitions(lake: Lake, ref: DatasetRef) -> list[str]:
    """The partitions of ``ref``, sorted; one that was written without rows is among them."""
    return list(partition_digests(lake, ref)) if _is_ours(lake, ref) else [WHOLE]


def count_rows(lake: Lake, ref: DatasetRef, partitions: Sequence[str] | None = None) -> int:
    """Rows of ``ref`` (in ``partitions``), from the table's log."""
    view = _View(lake, ref)
    if view.files is None:
        return int(view.dataset(partitions).count_rows())
    return sum(file.rows for file in view.chosen(partitions))


def partition_digests(lake: Lake, ref: DatasetRef) -> dict[str, str]:
    """The digest of each partition of ``ref`` (of an adopted table: from its record, or computed)."""
    view = _View(lake, ref)
    if view.files is not None:
        return partition_digests_of(view.files)
    record = stored_record(lake, ref)
    return {WHOLE: record.partition_digests[0] if record else table_digest(scan(lake, ref))}


def content_digest(lake: Lake, ref: DatasetRef, partitions: Sequence[str] | None = None) -> str:
    """One digest over the named partitions (all: the version's); the same rows give the same one.

    :raises NotFoundError: no such partition.
    """
    digests = partition_digests(lake, ref)
    return version_digest(
        digests if partitions is None else {name: digests[name] for name in _known(ref, digests, partitions)}
    )


def rebuild_version_record(lake: Lake, ref: DatasetRef) -> DatasetVersion:
    """The record of ``ref``: the stored one, else rebuilt from the table's log.

    :raises NotFoundError: no such version, or one that this package did not commit.
    """
    return version_record(lake, ref)


def verify_version(lake: Lake, ref: DatasetRef) -> list[str]:
    """Read every row of ``ref`` again and compare digests; gives one sentence for each difference."""
    view = _View(lake, ref)
    record = stored_record(lake, ref)
    if view.files is None:
        if record is None:
            return [f"{ref} has no record to compare with"]
        found, recorded = _digest_or_reason(view, None), record.partition_digests[0]
        return [] if found == recorded else [f"{found} found, its record says {recorded}"]
    problems = []
    for (partition, batch), group in groupby(view.files, key=lambda file: file.key):
        parts = list(group)
        found = _digest_or_reason(view, parts)
        if found != parts[0].digest:
            problems.append(
                f"partition {partition}, batch {batch}: {found} found, {parts[0].digest} committed"
            )
    digest = version_digest(partition_digests_of(view.files))
    if record is not None and record.digest != digest:
        problems.append(f"the version has digest {digest}, its record says {record.digest}")
    return problems


class _View:
    """One open version. ``files`` is None for an adopted table."""

    def __init__(self, lake: Lake, ref: DatasetRef) -> None:
        self.lake, self.ref = lake, ref
        if ref.lake_id != lake.lake_id:
            raise LakeError(
                f"{ref} is of lake {ref.lake_id}, this is lake {lake.lake_id}",
                code="lake.other_uuid",
                todo="use the connection of the lake that has it",
            )
        self.handle: Any = open_table(lake, ref.table, ref.version)
        found = ref_of(lake, ref.table, self.handle)
        if found != ref:
            raise NotFoundError(
                f"{ref} is gone",
                code="not_found.table",
                why=f"the table was made again: it is {found.table_uuid} now, {ref.table_uuid} was asked for",
                todo="name a version of the present table",
                context={"table": ref.table},
            )
        self.files = segments_of(self.handle) if table_info(self.handle) is not None else None
        self.schema = table_schema(self.handle)
        self.full_schema = with_partition_column(self.schema)

    def chosen(self, partitions: Sequence[str] | None) -> list[FileSegment]:
        files = self.files or []
        if partitions is None:
            return files
        wanted = set(_known(self.ref, {file.partition for file in files}, partitions))
        return [file for file in files if file.partition in wanted]

    def dataset(self, partitions: Sequence[str] | None) -> Any:
        if self.files is not None:
            return files_dataset(self.lake, self.ref.table, self.full_schema, self.chosen(partitions))
        _known(self.ref, {WHOLE}, partitions or [WHOLE])
        return adopted_dataset(self.handle, table=self.ref.table)


def adopted_dataset(handle: Any, *, table: str) -> Any:
    """An adopted table's files in the order of their names, with the partition column of our own tables."""
    from deltalake.exceptions import DeltaProtocolError

    try:
        dataset = handle.to_pyarrow_dataset()
    except DeltaProtocolError as error:
        raise LakeError(
            f"table {table} uses features of Delta Lake that cannot be read here",
            code="lake.unsupported_features",
            why=str(error),
            todo="rewrite it without deletion vectors and column mapping, or ingest it",
        ) from None
    schema = dataset.schema.append(pa.field(PARTITION_COLUMN, pa.string()))
    whole = pads.field(PARTITION_COLUMN) == WHOLE
    fragments = [
        dataset.format.make_fragment(
            fragment.path,
            filesystem=dataset.filesystem,
            partition_expression=fragment.partition_expression & whole,
        )
        for fragment in sorted(dataset.get_fragments(), key=lambda fragment: fragment.path)
    ]
    return pads.FileSystemDataset(fragments, schema, dataset.format, dataset.filesystem)


def _by_row_group(dataset: Any, names: list[str], filter: Any, rows: int) -> Iterator[pa.RecordBatch]:
    """The batches of one row group after the other, each read when the one before is used up.

    A scanner of the whole dataset reads ahead of a slow consumer until a gigabyte waits.
    """
    for fragment in dataset.get_fragments():
        for group in fragment.split_by_row_group():
            scanner = group.scanner(schema=dataset.schema, columns=names, filter=filter, batch_size=rows)
            yield from scanner.to_batches()


def _digest_or_reason(view: _View, parts: list[FileSegment] | None) -> str:
    """What the rows of ``parts`` (None: of an adopted table) are now, or why that cannot be said."""
    try:
        if parts is None:
            return table_digest(scan(view.lake, view.ref))
        # A digest is over the columns that were there when the rows were written.
        own = own_schema(view.schema, parts[0])
        dataset = files_dataset(view.lake, view.ref.table, own, parts)
        return table_digest(dataset.scanner(columns=own.names).to_reader())
    except FileNotFoundError:
        return "a file is missing"
    except LakeError as error:
        return (
            "a file is missing"
            if error.code == "lake.missing_file"
            else f"a file cannot be read ({error.code})"
        )
    except (pa.ArrowException, OSError) as error:
        return f"a file cannot be read ({type(error).__name__})"


def _is_ours(lake: Lake, ref: DatasetRef) -> bool:
    return _View(lake, ref).files is not None


def _known(ref: DatasetRef, names: Any, asked: Sequence[str]) -> Sequence[str]:
    missing = sorted(set(asked) - set(names))
    if missing:
        raise NotFoundError(
            f"{ref} has no partition {', '.join(missing[:10])}",
            code="not_found.partition",
            why=f"it has {len(names)} partitions, {len(missing)} of those asked for are not among them",
            todo="load them first, or correct the name",
            context={"table": ref.table, "version": ref.version},
        )
    return asked
