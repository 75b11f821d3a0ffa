"""CSV: text columns in batches, converted to declared types, errors by line.

For :mod:`airflow_provider_xops.data.sources`. Arrow parses the text, our own conversion types it, so that a
wrong value is reported by column and line and never quoted. A second, slow pass looks for the line, and only
then.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from airflow_provider_xops.data.column_types import ConversionFailed, Declared
from airflow_provider_xops.data.source_bytes import SourceBytes
from airflow_provider_xops.errors import ArgumentError, SourceError
from airflow_provider_xops.records import SourceFile

__all__ = ["CsvDialect", "check_columns", "encoding_error", "read_csv", "text_batches", "type_error"]

BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class CsvDialect:
    """How a CSV file is written.

    :param delimiter: one character.
    :param na_values: texts that mean "no value", quoted or not, in every column.
    """

    delimiter: str = ","
    na_values: tuple[str, ...] = ("", "NA")

    def __post_init__(self) -> None:
        if len(self.delimiter) != 1:
            raise ArgumentError(
                f"{self.delimiter!r} is not a delimiter", code="argument.delimiter", todo="use one character"
            )


def read_csv(
    source: SourceBytes, *, declared: Declared, dialect: CsvDialect, expected: SourceFile | None = None
) -> Iterator[Any]:
    """Typed record batches, columns in declared order. No byte or a header alone gives no batch.

    :raises SourceError: ``source.columns``, ``source.types``, ``source.encoding``, ``source.malformed``,
        ``source.truncated``, ``source.changed``.
    """
    for name, column in declared.items():
        if column.nested:
            raise ArgumentError(
                f"column {name!r} is declared {column.text}",
                code="argument.type",
                why="a CSV field cannot be nested",
                todo="declare it as a string",
            )
    schema = pa.schema([(name, column.arrow) for name, column in declared.items()])
    rows_before = 0
    for batch in text_batches(source, dialect=dialect, declared=declared, expected=expected):
        arrays = []
        for name, column in declared.items():
            try:
                arrays.append(column.from_text(batch.column(name)))
            except ConversionFailed as error:
                row = None if error.index is None else rows_before + error.index
                raise type_error(source, name, error.why, _line_of_row(source, dialect, row)) from None
        yield pa.record_batch(arrays, schema=schema)
        rows_before += batch.num_rows


def text_batches(
    source: SourceBytes,
    *,
    dialect: CsvDialect,
    declared: Declared | None = None,
    expected: SourceFile | None = None,
) -> Iterator[Any]:
    """Record batches of strings and nulls, as the file has them; ``declared`` checks its columns first."""
    with source.reading(expected) as content:
        header = _header(source, content, dialect)
        if header is None:
            return
        check_columns(source, header, declared)
        try:
            # The file is closed by us, after its last bytes were hashed.
            reader = pacsv.open_csv(
                _KeepOpen(content),
                read_options=pacsv.ReadOptions(
                    column_names=header, block_size=BLOCK_BYTES, use_threads=False
                ),
                parse_options=pacsv.ParseOptions(delimiter=dialect.delimiter, newlines_in_values=True),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(header, pa.string()),
                    null_values=list(dialect.na_values),
                    strings_can_be_null=True,
                ),
            )
        except pa.ArrowInvalid as error:
            if "Empty CSV" in str(error):
                return
            raise _diagnose(source, header, dialect) from None
        batches = iter(reader)
        while True:
            try:
                batch = next(batches, None)
            except pa.ArrowInvalid:
                raise _diagnose(source, header, dialect) from None
            if batch is None:
                return
            yield batch


def check_columns(source: SourceBytes, found: Sequence[str], declared: Declared | None) -> None:
    """:raises SourceError: ``source.columns``; names the missing, the undeclared and the repeated columns."""
    repeated = sorted({name for name in found if list(found).count(name) > 1})
    missing = [name for name in declared or () if name not in found]
    extra = [name for name in found if declared is not None and name not in declared]
    problems = [
        f"{label}: {', '.join(repr(name) for name in names)}"
        for label, names in (("missing", missing), ("not declared", extra), ("twice", repeated))
        if names
    ]
    if problems:
        raise SourceError(
            f"{source.name} does not have the columns of its schema",
            code="source.columns",
            why="; ".join(problems),
            todo="ask the sender what changed; correct the file, or load it with a schema that says so",
            context={"missing": missing, "extra": extra, "repeated": repeated},
        )


def type_error(source: SourceBytes, column: str, why: str, line: int | None) -> SourceError:
    """The error of a value that is not of its column's type."""
    where = f", line {line}" if line is not None else ""
    return SourceError(
        f"{source.name}{where}: column {column!r} does not have its declared type",
        code="source.types",
        why=why,
        todo="correct the file, or declare the column with the type that it has",
        context={"column": column, "line": line},
    )


def encoding_error(source: SourceBytes, line: int) -> SourceError:
    """The error of a byte that is not UTF-8."""
    return SourceError(
        f"{source.name}, line {line} is not UTF-8",
        code="source.encoding",
        why="it holds a byte that UTF-8 does not allow",
        todo="convert the file (for example `iconv -f latin1 -t utf-8`), or ask the sender for UTF-8",
        context={"line": line},
    )


class _KeepOpen(io.RawIOBase):
    """Gives Arrow something to close that is not our stream."""

    def __init__(self, content: io.BufferedReader) -> None:
        self._content = content

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._content.readinto(buffer)


class _Lines:
    """Decoded lines of a binary stream, counted; a line that is not UTF-8 is an error with its number."""

    def __init__(self, source: SourceBytes, content: io.BufferedReader) -> None:
        self._source = source
        self._content = content
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        for line in self._content:
            self.number += 1
            try:
                yield line.decode("utf-8-sig" if self.number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise encoding_error(self._source, self.number) from None


def _header(source: SourceBytes, content: io.BufferedReader, dialect: CsvDialect) -> list[str] | None:
    lines = iter(_Lines(source, content))
    # One line at a time: what the csv module has not asked for is still in the stream for Arrow.
    for row in csv.reader(lines, delimiter=dialect.delimiter):
        if row:
            return row
    return None


def _rows(source: SourceBytes, dialect: CsvDialect) -> Iterator[tuple[int, list[str]]]:
    """(first line, fields) of every record after the header; blank lines are no records."""
    with source.reading(None) as content:
        lines = _Lines(source, content)
        rows = csv.reader(iter(lines), delimiter=dialect.delimiter)
        first_line, header_seen = 1, False
        for row in rows:
            if row and header_seen:
                yield first_line, row
            header_seen = header_seen or bool(row)
            first_line = rows.line_num + 1


def _line_of_row(source: SourceBytes, dialect: CsvDialect, row: int | None) -> int | None:
    if row is None:
        return None
    try:
        return next((line for index, (line, _) in enumerate(_rows(source, dialect)) if index == row), None)
    except (csv.Error, SourceError):
        return None


def _diagnose(source: SourceBytes, header: list[str], dialect: CsvDialect) -> SourceError:
    """Why Arrow refused the file, found by reading it again; Arrow's message quotes rows."""
    line = None
    why = "it cannot be parsed as CSV"
    try:
        for first_line, row in _rows(source, dialect):
            if len(row) != len(header):
                line, why = first_line, f"it has {len(row)} fields where the header has {len(header)}"
                break
    except SourceError as error:
        return error
    except csv.Error as error:
        why = str(error)
    where = f", line {line}" if line is not None else ""
    return SourceError(
        f"{source.name}{where} is not a row of this table", code="source.malformed", why=why,
        todo="correct the file; check the delimiter and the quoting", context={"line": line},
    )  # fmt: skip
