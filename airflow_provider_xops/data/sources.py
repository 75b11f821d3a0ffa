"""Source files as streams of typed record batches: CSV, JSON lines and Parquet, local or behind an opener.

For ingestion, and for anyone who wants to read a file exactly as ingestion would::

    reader = open_source("flights.csv", schema={"flight": "int64", "carrier": "string"})
    reader.source_file.sha256       # computed in one pass before reading
    for batch in reader.reader():   # read in batches; the bytes are hashed again and compared
        ...

Formats by suffix: ``.csv``, ``.tsv`` (tab-delimited), ``.jsonl``, ``.ndjson``, ``.parquet``, each also with
``.gz``. A file of no bytes, or a header alone, is a file without rows: no data is not a failure.

What it does not do: hold a file in memory, list folders, or repair data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa

from airflow_provider_xops.data.column_types import Declared, declare, text_of
from airflow_provider_xops.data.source_bytes import OpenFile, SourceBytes
from airflow_provider_xops.data.source_csv import CsvDialect, read_csv
from airflow_provider_xops.data.source_inference import infer_columns
from airflow_provider_xops.data.source_jsonl import read_jsonl
from airflow_provider_xops.data.source_parquet import read_parquet
from airflow_provider_xops.errors import ArgumentError, SourceError
from airflow_provider_xops.records import SourceFile

__all__ = ["OpenFile", "SourceFormat", "SourceReader", "infer_schema", "open_source"]


class SourceFormat(StrEnum):
    """What a source file is."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


_SUFFIXES = {
    ".csv": SourceFormat.CSV,
    ".tsv": SourceFormat.CSV,
    ".jsonl": SourceFormat.JSONL,
    ".ndjson": SourceFormat.JSONL,
    ".parquet": SourceFormat.PARQUET,
    ".pq": SourceFormat.PARQUET,
}


@dataclass(frozen=True)
class SourceReader:
    """One identified source file, ready to be read, more than once if need be.

    :param declared: its columns; None until a schema is known (see :meth:`with_schema`).
    """

    bytes: SourceBytes
    source_file: SourceFile
    format: SourceFormat
    dialect: CsvDialect
    declared: Declared | None = None
    scratch: Path | None = None

    def with_schema(self, schema: Mapping[str, str] | Any) -> SourceReader:
        """The same file read under a schema."""
        return dataclasses.replace(self, declared=declare(schema))

    @property
    def schema(self) -> Any:
        """The Arrow schema of what :meth:`reader` gives."""
        return pa.schema([(name, column.arrow) for name, column in self._columns().items()])

    def reader(self) -> Any:
        """A ``pyarrow.RecordBatchReader`` over the file, typed as declared.

        :raises SourceError: while it is read; see the format's module for the codes.
        """
        return pa.RecordBatchReader.from_batches(self.schema, self._batches(self._columns()))

    def _columns(self) -> Declared:
        if self.declared is None:
            raise ArgumentError(
                f"{self.source_file.name} has no schema yet", code="argument.schema_needed",
                todo="declare its columns, or infer them with infer_schema",
            )  # fmt: skip
        return self.declared

    def _batches(self, declared: Declared) -> Iterator[Any]:
        if self.format is SourceFormat.CSV:
            return read_csv(self.bytes, declared=declared, dialect=self.dialect, expected=self.source_file)
        if self.format is SourceFormat.JSONL:
            return read_jsonl(self.bytes, declared=declared, expected=self.source_file)
        return read_parquet(self.bytes, declared=declared, expected=self.source_file, scratch=self.scratch)


def open_source(
    uri: str,
    *,
    format: str | None = None,
    schema: Mapping[str, str] | Any | None = None,
    open_file: OpenFile | None = None,
    delimiter: str | None = None,
    na_values: Sequence[str] = ("", "NA"),
    scratch: Path | None = None,
) -> SourceReader:
    """Identify a source file (one streaming pass for its SHA-256) and make it ready to read.

    :param format: ``csv``, ``jsonl`` or ``parquet``; None takes it from the suffix.
    :param schema: column name to type text (see :mod:`~airflow_provider_xops.data.column_types`), or a
        ``pyarrow.Schema``; the file must have exactly these columns, in any order.
    :param open_file: opens a URI that is not a local file.
    :param delimiter: of CSV; None is a comma, or a tab for ``.tsv``.
    :param na_values: CSV texts that mean "no value".
    :raises SourceError: ``source.missing``, ``source.forbidden``, ``source.not_a_file``.
    :raises ArgumentError: no URI, an unknown format, a bad schema.
    """
    source = SourceBytes(uri, open_file=open_file)
    kind = _format_of(source, format)
    if delimiter is None:
        delimiter = "\t" if ".tsv" in source.name.lower() else ","
    return SourceReader(
        bytes=source,
        source_file=source.identify(),
        format=kind,
        dialect=CsvDialect(delimiter, tuple(na_values)),
        declared=None if schema is None else declare(schema),
        scratch=scratch,
    )


def infer_schema(readers: Sequence[SourceReader]) -> dict[str, str]:
    """The columns of the given files as a schema of type texts; empty if no file has a row to learn from.

    Every row is looked at: the types are those that hold for all. Text is narrowed to ``int64``, ``float64``,
    ``bool``, ``date`` or ``timestamp``; numbers with leading zeros stay strings; a column without a value is
    a string.

    :raises SourceError: the files do not have the same columns, or cannot be read.
    :raises ArgumentError: ``argument.naive_timestamp``: a column holds times without a zone; declare it.

    >>> import pathlib, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> _ = pathlib.Path(folder.name, "a.csv").write_text("day,n\\n2013-01-01,1\\n")
    >>> infer_schema([open_source(f"{folder.name}/a.csv")])
    {'day': 'date', 'n': 'int64'}
    """
    declared: Declared = {}
    for kind in SourceFormat:
        chosen = [reader for reader in readers if reader.format is kind]
        if not chosen:
            continue
        found = infer_columns(kind.value, [(r.bytes, r.dialect, r.scratch) for r in chosen])
        if declared and found and text_of(declared) != text_of(found):
            raise SourceError(
                f"{chosen[0].source_file.name} and the files of another format do not have the same columns",
                code="source.columns", todo="declare the schema",
            )  # fmt: skip
        declared = declared or found
    return text_of(declared)


def _format_of(source: SourceBytes, format: str | None) -> SourceFormat:
    if format is not None:
        try:
            return SourceFormat(format)
        except ValueError:
            raise ArgumentError(
                f"{format!r} is not a source format", code="argument.format", todo="use csv, jsonl or parquet"
            ) from None
    name = source.name.lower().removesuffix(".gz")
    for suffix, kind in _SUFFIXES.items():
        if name.endswith(suffix):
            return kind
    raise ArgumentError(
        f"the name {source.name} does not say its format", code="argument.format",
        todo="pass format='csv', 'jsonl' or 'parquet'",
    )  # fmt: skip
