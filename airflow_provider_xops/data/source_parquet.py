"""Parquet: batches of row groups, widened to declared types, damage named.

For :mod:`airflow_provider_xops.data.sources`. Parquet is read at random places, so a remote file is first
spooled to a local one (hashed on the way), and a local one is hashed again after its last row.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as papq

from airflow_provider_xops.data.column_types import ConversionFailed, Declared
from airflow_provider_xops.data.source_bytes import CHUNK_BYTES, SourceBytes
from airflow_provider_xops.data.source_csv import check_columns, type_error
from airflow_provider_xops.errors import SourceError
from airflow_provider_xops.records import SourceFile

__all__ = ["parquet_schema", "read_parquet"]

BATCH_ROWS = 65_536


def read_parquet(
    source: SourceBytes,
    *,
    declared: Declared,
    expected: SourceFile | None = None,
    scratch: Path | None = None,
) -> Iterator[Any]:
    """Typed record batches, columns in declared order. An empty file gives no batch.

    :param scratch: where a remote file is spooled; the system's temporary folder if None.
    :raises SourceError: ``source.columns``, ``source.types`` (the row where a value does not fit),
        ``source.encoding``, ``source.truncated``, ``source.changed``.
    """
    schema = pa.schema([(name, column.arrow) for name, column in declared.items()])
    with _opened(source, expected, scratch) as file:
        if file is None:
            return
        check_columns(source, file.schema_arrow.names, declared)
        rows_before = 0
        batches = file.iter_batches(batch_size=BATCH_ROWS, columns=list(declared), use_threads=False)
        while True:
            with _damage(source):
                batch = next(batches, None)
            if batch is None:
                return
            arrays = []
            for name, column in declared.items():
                try:
                    values = column.from_typed(batch.column(name))
                    _check_text(source, name, values, rows_before)
                    arrays.append(values)
                except ConversionFailed as error:
                    row = "" if error.index is None else f" (row {rows_before + error.index + 1})"
                    raise type_error(source, name, error.why + row, None) from None
            yield pa.record_batch(arrays, schema=schema)
            rows_before += batch.num_rows


def _check_text(source: SourceBytes, column: str, values: Any, rows_before: int) -> None:
    """Refuse text that is not UTF-8: readers of Parquet take any bytes, and pandas breaks on them later."""
    if not (pa.types.is_string(values.type) or pa.types.is_nested(values.type)):
        return
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        raise SourceError(
            f"{source.name}: column {column!r} holds text that is not UTF-8",
            code="source.encoding",
            why=f"found in rows {rows_before + 1} to {rows_before + len(values)}",
            todo="have the sender write UTF-8, or declare the column as binary on both sides",
            context={"column": column},
        ) from None


def parquet_schema(source: SourceBytes, *, scratch: Path | None = None) -> Any | None:
    """The file's Arrow schema; None for a file of no bytes."""
    with _opened(source, None, scratch) as file:
        return None if file is None else file.schema_arrow


@contextmanager
def _opened(source: SourceBytes, expected: SourceFile | None, scratch: Path | None) -> Iterator[Any]:
    with tempfile.TemporaryDirectory(dir=scratch, prefix="source-") as folder:
        path = source.path
        if path is None or source.compressed:
            path = Path(folder) / "source.parquet"
            with source.reading(expected) as content, path.open("wb") as spool:
                shutil.copyfileobj(content, spool, CHUNK_BYTES)
        with source.typed_errors():
            size = path.stat().st_size
        if not size:
            yield None
        else:
            with _damage(source):
                file = papq.ParquetFile(path)
            with file:
                yield file
        if expected is not None and path == source.path:
            with source.open() as stream:
                stream.verify(expected)


@contextmanager
def _damage(source: SourceBytes) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            with source.typed_errors():
                raise
        cut = "magic bytes" in str(error) or "smaller than" in str(error)
        raise SourceError(
            f"{source.name} is {'cut short or not Parquet' if cut else 'damaged'}", code="source.truncated",
            why="its footer is missing" if cut else "a part of it cannot be decoded",
            todo="deliver the file again, complete",
        ) from None  # fmt: skip
