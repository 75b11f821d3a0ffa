"""Column types learned from files, for a first load without a declared schema.

For :func:`airflow_provider_xops.data.sources.infer_schema`. All rows are read, in batches, and a type is
kept only as long as every value has it; so the load that follows cannot meet a value which the inference did
not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_xops.data.column_types import ConversionFailed, Declared, from_arrow, parse_type
from airflow_provider_xops.data.source_bytes import SourceBytes
from airflow_provider_xops.data.source_csv import CsvDialect, check_columns, text_batches
from airflow_provider_xops.data.source_jsonl import json_blocks, parse_block
from airflow_provider_xops.data.source_parquet import parquet_schema
from airflow_provider_xops.errors import ArgumentError, SourceError

__all__ = ["infer_columns"]

Input = tuple[SourceBytes, CsvDialect, Path | None]

_FROM_TEXT = ("int64", "float64", "bool", "date", "timestamp")
_FROM_JSON_TEXT = ("date", "timestamp")
# 007 is a code, 0x1F is not a number to most people: both stay text.
_NOT_A_NUMBER = r"^\s*[+-]?0[0-9xX]"


def infer_columns(format: str, inputs: Sequence[Input]) -> Declared:
    """Columns of files of one format; empty if none has a row (a Parquet file's schema is enough)."""
    if format == "csv":
        return _from_csv(inputs)
    return _from_jsonl(inputs) if format == "jsonl" else _from_parquet(inputs)


class _Narrowing:
    """The narrowest type that all texts seen so far have."""

    def __init__(self, candidates: Sequence[str]) -> None:
        self._candidates = candidates
        self._kind: str | None = None
        self._local_times = True

    def update(self, values: Any) -> None:
        values = values.drop_null()
        if not len(values) or (self._kind == "string" and not self._local_times):
            return
        self._local_times = self._local_times and _is_local_time(values)
        if self._kind is None:
            self._kind = next((kind for kind in self._candidates if _holds(kind, values)), "string")
        elif self._kind != "string" and not _holds(self._kind, values):
            # Whole numbers are numbers; nothing else widens into something that is not text.
            self._kind = "float64" if self._kind == "int64" and _holds("float64", values) else "string"

    def result(self, column: str) -> str:
        if self._kind == "string" and self._local_times:
            raise ArgumentError(
                f"column {column!r} holds times without a zone", code="argument.naive_timestamp",
                why="a local time is not a moment until its zone is known",
                todo=f"pass a schema that says {column!r}: 'timestamp[Area/City]' (or 'timestamp[UTC]')",
            )  # fmt: skip
        return self._kind or "string"


def _from_csv(inputs: Sequence[Input]) -> Declared:
    columns: dict[str, _Narrowing] = {}
    for source, dialect, _ in inputs:
        checked = False
        for batch in text_batches(source, dialect=dialect):
            columns = columns or {name: _Narrowing(_FROM_TEXT) for name in batch.schema.names}
            if not checked:
                check_columns(source, batch.schema.names, dict.fromkeys(columns, parse_type("string")))
                checked = True
            for name, column in columns.items():
                column.update(batch.column(name))
    return {name: parse_type(column.result(name)) for name, column in columns.items()}


def _from_jsonl(inputs: Sequence[Input]) -> Declared:
    schema = pa.schema([])
    texts: dict[str, _Narrowing] = {}
    for source, _, _ in inputs:
        for first_line, block in json_blocks(source):
            try:
                found = parse_block(block, None)
                # Arrow takes text that looks like a time for one, without its zone: it is looked at as text.
                times = pa.schema(
                    [(f.name, pa.string()) for f in found.schema if pa.types.is_timestamp(f.type)]
                )
                if len(times):
                    found = parse_block(block, pa.unify_schemas([times, _without(found.schema, times.names)]))
                schema = pa.unify_schemas([schema, found.schema], promote_options="permissive")
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                raise SourceError(
                    f"{source.name}: the lines from {first_line} on do not fit together",
                    code="source.types",
                    why="a line is not JSON, or a key holds different types"
                    if isinstance(error, pa.ArrowInvalid)
                    else "a key holds different types in different lines",
                    todo="correct the file, or declare the schema to see the line",
                ) from None
            for field in found.schema:
                if pa.types.is_string(field.type):
                    texts.setdefault(field.name, _Narrowing(_FROM_JSON_TEXT)).update(
                        found.column(field.name).combine_chunks()
                    )
    return {
        field.name: parse_type(texts[field.name].result(field.name))
        if field.name in texts
        else parse_type("string")
        if pa.types.is_null(field.type)
        else from_arrow(field.type, column=field.name)
        for field in schema
    }


def _from_parquet(inputs: Sequence[Input]) -> Declared:
    for source, _, scratch in inputs:
        schema = parquet_schema(source, scratch=scratch)
        if schema is not None:
            return {field.name: from_arrow(field.type, column=field.name) for field in schema}
    return {}


def _without(schema: Any, names: Sequence[str]) -> Any:
    return pa.schema([field for field in schema if field.name not in names])


def _holds(kind: str, values: Any) -> bool:
    if kind in ("int64", "float64") and pc.any(pc.match_substring_regex(values, _NOT_A_NUMBER)).as_py():
        # 0.5 begins with a zero as well, but no digit follows it.
        return False
    try:
        parse_type(kind).from_text(values)
    except ConversionFailed:
        return False
    return True


def _is_local_time(values: Any) -> bool:
    try:
        pc.cast(values, pa.timestamp("us"))
    except pa.ArrowInvalid:
        return False
    # A date alone is a date.
    return bool(pc.all(pc.match_substring_regex(values, ":")).as_py())
