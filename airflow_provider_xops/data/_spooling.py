"""Rows of a source that has no checksum of its own, put into a scratch file to get one.

For the readers of databases, APIs and growing folders. What decides whether a batch is in the lake already is
its input; a query's answer has no name and no checksum, so it is read once, brought into canonical order, and
the digest of the rows is its fingerprint.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_provider_xops.data.column_types import Declared
from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake.parquet_files import sorted_batches, write_segment
from airflow_provider_xops.lake.schema import cast_batch, to_delta_schema
from airflow_provider_xops.records import DatasetVersion

__all__ = ["Ingested", "Spooled", "canonical_schema", "one_of", "spool"]


@dataclass(frozen=True, kw_only=True)
class Ingested:
    """What one ingestion came to.

    :param record: the version that holds the data; None: the source had nothing and there is no version yet.
    :param reused: nothing new was committed.
    :param notes: small plain figures for the log and for what the task returns.
    """

    record: DatasetVersion | None
    reused: bool
    notes: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Spooled:
    """Rows in scratch files, with their digest. Read as often as needed while the scratch folder lives."""

    schema: Any
    files: tuple[Path, ...]
    rows: int
    size: int
    digest: str

    def reader(self) -> Any:
        """A ``pyarrow.RecordBatchReader`` over the rows, in their order."""
        return pa.RecordBatchReader.from_batches(self.schema, self._batches())

    def _batches(self) -> Iterator[Any]:
        for path in self.files:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(use_threads=False):
                    yield cast_batch(batch, self.schema)


def canonical_schema(declared: Declared) -> Any:
    """The Arrow schema that rows of these columns are spooled and committed in."""
    return to_delta_schema(pa.schema([(name, column.arrow) for name, column in declared.items()]))


def spool(
    batches: Iterable[Any], schema: Any, folder: Path, *, order_by: Sequence[str] | None, subject: str
) -> Spooled:
    """Write ``batches`` into a new folder of ``folder``.

    :param order_by: sort by these columns, then by all others; None: the order they come in is kept.
    :param subject: whom an error names.
    :raises ArgumentError: ``argument.column``: there is no such column to order by.
    """
    place = Path(tempfile.mkdtemp(prefix="spool-", dir=folder))
    (place / "sort").mkdir()
    batches = (cast_batch(batch, schema) for batch in batches)
    if order_by is not None:
        missing = [name for name in order_by if name not in schema.names]
        if missing:
            raise ArgumentError(
                f"{subject} has no column {missing[0]!r} to order by", code="argument.column",
                todo=f"use some of {schema.names}",
            )  # fmt: skip
        batches = sorted_batches(batches, schema, order_by, place / "sort")
    written = write_segment(batches, schema, place)
    return Spooled(
        schema=schema,
        files=tuple(file.path for file in written.files),
        rows=written.rows,
        size=sum(file.size for file in written.files),
        digest=written.digest,
    )


def one_of(given: str, allowed: tuple[str, ...], *, argument: str) -> str:
    """:raises ArgumentError: it is none of ``allowed``."""
    if given not in allowed:
        raise ArgumentError(
            f"{argument} is {str(given)[:40]!r}", code=f"argument.{argument}",
            todo=f"use one of {', '.join(allowed)}",
        )  # fmt: skip
    return given
