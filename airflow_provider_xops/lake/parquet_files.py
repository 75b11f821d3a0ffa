"""Rows into Parquet files, sorted if asked, and their digest in the same pass.

For the commit path. Nothing is held in memory but a few batches: sorting spills to the scratch folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_provider_xops.lake.digest import SegmentDigest
from airflow_provider_xops.lake.duckdb_box import open_box
from airflow_provider_xops.lake.schema import cast_batch

__all__ = ["WrittenFile", "WrittenSegment", "sorted_batches", "write_segment"]

# A row group is what readers take as one piece of work (DuckDB's own are of 122,880 rows).
ROW_GROUP_ROWS = 131_072
ROW_GROUP_BYTES = 64 << 20
PART_BYTES = 1 << 30
DICTIONARY_SAMPLE = 10_000
SORT_MEMORY = "1GB"


@dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """A local Parquet file. ``null_counts`` by column: the only statistics of values that go into the log."""

    path: Path
    rows: int
    size: int
    null_counts: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class WrittenSegment:
    """All rows of one batch in one partition: their files in order (at least one) and their digest."""

    files: tuple[WrittenFile, ...]
    rows: int
    digest: str


def write_segment(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, folder: Path, *, part_bytes: int = PART_BYTES
) -> WrittenSegment:
    """Write ``batches`` in their order.

    :param batches: batches of exactly ``schema``, of any size.
    :param folder: an empty folder for the files.
    :param part_bytes: a new file is begun after so many bytes (in memory).

    No rows give one file without rows: an empty partition is a fact, unlike one that nobody wrote.
    """
    digest = SegmentDigest(schema)
    files: list[WrittenFile] = []
    part: _Part | None = None
    try:
        for group in _row_groups(batches, schema):
            digest.update(group)  # goes on in its threads while the group is encoded
            if part is not None and part.bytes >= part_bytes:
                files.append(part.close())
                part = None
            if part is None:
                part = _Part(folder / f"{len(files):05d}.parquet", schema, _repetitive(group))
            part.write(group)
        if part is None:
            part = _Part(folder / "00000.parquet", schema, [])
        files.append(part.close())
        return WrittenSegment(files=tuple(files), rows=digest.rows, digest=digest.hexdigest())
    finally:
        digest.close()
        if part is not None:
            part.abandon()


def sorted_batches(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, order_by: Sequence[str], folder: Path
) -> Iterator[pa.RecordBatch]:
    """``batches`` by ``order_by``, then by the other columns, so that no order is left to chance.

    :param folder: where the sort spills to when it does not fit into memory (1 GB).

    Maps have no order: two rows that differ in nothing but a map stay in the order DuckDB gives them.
    """
    failures: list[BaseException] = []
    columns = [
        *order_by,
        *(field.name for field in schema if field.name not in order_by and _sortable(field.type)),
    ]
    order = ", ".join(f"{_quoted(name)} ASC NULLS FIRST" for name in columns)
    connection = open_box(folder=folder, memory_limit=SORT_MEMORY)
    try:
        reader = pa.RecordBatchReader.from_batches(schema, _recording(batches, failures))
        connection.register("unsorted", reader)
        try:
            result = connection.sql(f"SELECT * FROM unsorted ORDER BY {order}").fetch_arrow_reader(
                ROW_GROUP_ROWS
            )
        except Exception:
            if failures:  # the source's own typed error, not DuckDB's report of it
                raise failures[0] from None
            raise
        for batch in result:
            yield cast_batch(batch, schema)
    finally:
        connection.close()


class _Part:
    """One file being written."""

    def __init__(self, path: Path, schema: pa.Schema, dictionaries: list[str]) -> None:
        self.path, self.rows, self.bytes = path, 0, 0
        self._null_counts = {field.name: 0 for field in schema if not pa.types.is_nested(field.type)}
        self._writer: Any = pq.ParquetWriter(
            path,
            schema,
            compression="snappy",
            use_dictionary=dictionaries or False,
            # Of floating-point columns none: readers take a minimum and a maximum for all there is, and NaN
            # is in neither (see duckdb_box).
            write_statistics=[
                field.name
                for field in schema
                if not (pa.types.is_nested(field.type) or pa.types.is_floating(field.type))
            ],
        )

    def write(self, group: pa.RecordBatch) -> None:
        self._writer.write_batch(group, row_group_size=max(1, group.num_rows))
        self.rows += group.num_rows
        self.bytes += group.nbytes
        for name in self._null_counts:
            self._null_counts[name] += group.column(name).null_count

    def close(self) -> WrittenFile:
        self._writer.close()
        return WrittenFile(
            path=self.path, rows=self.rows, size=self.path.stat().st_size, null_counts=self._null_counts
        )

    def abandon(self) -> None:
        if self._writer.is_open:
            self._writer.close()


def _repetitive(group: pa.RecordBatch) -> list[str]:
    """The columns worth a dictionary; trying one for every column takes half of the time of a write."""
    sample = group.slice(0, DICTIONARY_SAMPLE)
    return [
        field.name
        for field in group.schema
        if not pa.types.is_nested(field.type)
        and not pa.types.is_boolean(field.type)
        and len(sample.column(field.name).unique()) <= sample.num_rows / 2
    ]


def _row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of the size of a row group."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        start = 0
        while start < batch.num_rows:
            piece = batch.slice(start, ROW_GROUP_ROWS - rows)
            start += piece.num_rows
            waiting.append(piece)
            rows, size = rows + piece.num_rows, size + piece.nbytes
            if rows >= ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES:
                yield _joined(waiting)
                waiting, rows, size = [], 0, 0
    if waiting:
        yield _joined(waiting)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def _recording(batches: Iterable[pa.RecordBatch], failures: list[BaseException]) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    except BaseException as error:
        failures.append(error)
        raise


def _sortable(kind: pa.DataType) -> bool:
    if pa.types.is_map(kind):
        return False
    if pa.types.is_nested(kind):
        return all(_sortable(kind.field(index).type) for index in range(kind.num_fields))
    return True


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
