"""Merging by keys: which rows of other batches a batch replaces.

For the commit path. Only the key columns of the other files are looked at to find the rows; only files that
lose rows are written again, in the order they had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_provider_xops.errors import DataError
from airflow_provider_xops.lake.duckdb_box import open_box
from airflow_provider_xops.lake.parquet_files import WrittenSegment

__all__ = ["keys_of", "replaced_rows", "without_rows"]

_ROW = "_xops_row"


def keys_of(written: WrittenSegment, keys: Sequence[str], *, table: str) -> pa.Table:
    """The key columns of freshly written rows.

    :raises DataError: ``data.null_key`` or ``data.duplicate_keys``: the keys do not identify the rows.
    """
    columns = list(keys)
    found = pa.concat_tables([pq.read_table(file.path, columns=columns) for file in written.files])
    for name in columns:
        if found.column(name).null_count:
            raise DataError(
                f"key column {name!r} has {found.column(name).null_count} missing values",
                code="data.null_key",
                why=f"table {table} merges by {columns}",
                todo="give every row its keys",
            )
    doubled = found.num_rows - found.group_by(columns).aggregate([]).num_rows
    if doubled:
        raise DataError(
            f"{doubled} of {found.num_rows} rows for table {table} repeat the keys {columns} of another row",
            code="data.duplicate_keys",
            why="which one is right cannot be known",
            todo="remove duplicates in the source",
            context={"rows": found.num_rows, "duplicates": doubled},
        )
    return found


def replaced_rows(dataset: Any, keys: pa.Table) -> Any:
    """Numbers (sorted, in the dataset's order) of the rows of ``dataset`` whose keys are among ``keys``."""
    names = keys.column_names
    connection = open_box()
    try:
        connection.register("incoming", keys)
        connection.register("present", _numbered(dataset, names))
        same = " AND ".join(f"present.{_quoted(name)} = incoming.{_quoted(name)}" for name in names)
        found = connection.execute(
            f"SELECT {_ROW} FROM present WHERE EXISTS (FROM incoming WHERE {same}) ORDER BY {_ROW}"
        ).fetchnumpy()
    finally:
        connection.close()
    return found[_ROW]


def without_rows(dataset: Any, rows: Any, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The batches of ``dataset`` in their order, without the numbered ``rows`` (sorted)."""
    start = 0
    for batch in dataset.scanner(columns=list(columns)).to_batches():
        first, last = np.searchsorted(rows, (start, start + batch.num_rows))
        if first == last:
            yield batch
        else:
            keep = np.ones(batch.num_rows, dtype=bool)
            keep[rows[first:last] - start] = False
            yield batch.filter(pa.array(keep))
        start += batch.num_rows


def _numbered(dataset: Any, names: Sequence[str]) -> pa.RecordBatchReader:
    schema = pa.schema([*(dataset.schema.field(name) for name in names), pa.field(_ROW, pa.int64())])

    def batches() -> Iterator[pa.RecordBatch]:
        start = 0
        for batch in dataset.scanner(columns=list(names)).to_batches():
            numbers = pa.array(np.arange(start, start + batch.num_rows, dtype=np.int64))
            yield pa.RecordBatch.from_arrays(
                [*(batch.column(name) for name in names), numbers], schema=schema
            )
            start += batch.num_rows

    return pa.RecordBatchReader.from_batches(schema, batches())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
