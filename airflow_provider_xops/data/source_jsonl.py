"""JSON lines: one object a line, read in blocks of whole lines, errors by line.

For :mod:`airflow_provider_xops.data.sources`. Arrow parses each block under the declared schema; only a
block that it refuses is looked at line by line. A key that is missing in an object is a null; a key that is
in no object of the file is a missing column.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pajson

from airflow_provider_xops.data.column_types import ColumnType, ConversionFailed, Declared
from airflow_provider_xops.data.source_bytes import SourceBytes
from airflow_provider_xops.data.source_csv import check_columns, encoding_error, type_error
from airflow_provider_xops.errors import SourceError
from airflow_provider_xops.records import SourceFile

__all__ = ["json_blocks", "parse_block", "read_jsonl"]

BLOCK_BYTES = 4 << 20
_OFFSET = r"(Z|[+-]\d{2}(:?\d{2})?)$"


def read_jsonl(
    source: SourceBytes, *, declared: Declared, expected: SourceFile | None = None
) -> Iterator[Any]:
    """Typed record batches, columns in declared order. A file without a line gives no batch.

    :raises SourceError: ``source.columns``, ``source.types``, ``source.encoding``, ``source.malformed``,
        ``source.truncated``, ``source.changed``.
    """
    schema = pa.schema([(name, column.arrow) for name, column in declared.items()])
    parsed_as = pa.schema([(name, _json_type(column)) for name, column in declared.items()])
    unseen = {name: json.dumps(name).encode() for name in declared}
    plain = {name: json.dumps(name, ensure_ascii=False).encode() for name in declared}
    rows = 0
    for first_line, block in json_blocks(source, expected=expected):
        try:
            table = parse_block(block, parsed_as)
        except pa.ArrowInvalid:
            raise _diagnose(source, block, first_line, declared, parsed_as) from None
        unseen = {
            name: key
            for name, key in unseen.items()
            if table.column(name).null_count == table.num_rows
            and key not in block
            and plain[name] not in block
        }
        _check_offsets(source, block, declared, parsed_as, first_line)
        rows += table.num_rows
        for batch in table.to_batches():
            yield pa.record_batch(
                [
                    _convert(source, batch, name, column, block, first_line)
                    for name, column in declared.items()
                ],
                schema=schema,
            )
    if rows and unseen:
        check_columns(source, [name for name in declared if name not in unseen], declared)


def json_blocks(source: SourceBytes, *, expected: SourceFile | None = None) -> Iterator[tuple[int, bytes]]:
    """(number of its first line, whole lines) for about four megabytes at a time, all UTF-8."""
    with source.reading(expected) as content:
        number = 1
        for block in _whole_lines(content):
            body = block.removeprefix(b"\xef\xbb\xbf") if number == 1 else block
            try:
                body.decode()
            except UnicodeDecodeError as error:
                raise encoding_error(source, number + body.count(b"\n", 0, error.start)) from None
            if body.strip():
                yield number, body
            number += block.count(b"\n")


def parse_block(block: bytes, schema: Any | None) -> Any:
    """One block as a table; ``schema=None`` lets Arrow infer it, else other fields are refused."""
    options = (
        pajson.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="error", newlines_in_values=False
        )
        if schema is not None
        else pajson.ParseOptions(newlines_in_values=False)
    )
    read = pajson.ReadOptions(block_size=len(block) + 1, use_threads=False)
    return pajson.read_json(io.BytesIO(block), read_options=read, parse_options=options).combine_chunks()


def _whole_lines(content: io.BufferedReader) -> Iterator[bytes]:
    rest = b""
    while chunk := content.read(BLOCK_BYTES):
        cut = chunk.rfind(b"\n") + 1
        if cut:
            yield rest + chunk[:cut]
            rest = chunk[cut:]
        else:
            rest += chunk
    if rest:
        yield rest


def _json_type(column: ColumnType) -> Any:
    # JSON has no dates, times or bytes: they come as text and are converted as text.
    types = pa.types
    as_text = types.is_timestamp(column.arrow) or types.is_date(column.arrow) or types.is_binary(column.arrow)
    return pa.string() if as_text else column.arrow


def _check_offsets(
    source: SourceBytes, block: bytes, declared: Declared, parsed_as: Any, first_line: int
) -> None:
    """Refuse times without a UTC offset inside lists and structs, which Arrow takes for UTC."""
    nested = [
        name for name, column in declared.items() if column.nested and _as_text(column.arrow) != column.arrow
    ]
    if not nested:
        return
    texts = pa.schema(
        [(field.name, _as_text(field.type) if field.name in nested else field.type) for field in parsed_as]
    )
    table = parse_block(block, texts)
    for name in nested:
        for values in _time_leaves(table.column(name).combine_chunks(), declared[name].arrow):
            if pc.any(pc.invert(pc.match_substring_regex(values, _OFFSET))).as_py():
                why = f"a time without a UTC offset, in a line from {first_line} on"
                raise type_error(source, name, why, None)


def _as_text(kind: Any) -> Any:
    """The type with text in the place of times."""
    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_as_text(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _as_text(field.type)) for field in kind])
    return kind


def _time_leaves(values: Any, kind: Any) -> Iterator[Any]:
    """The texts of an array that stand where ``kind`` has times."""
    if pa.types.is_timestamp(kind):
        yield values
    elif pa.types.is_list(kind):
        yield from _time_leaves(values.flatten(), kind.value_type)
    elif pa.types.is_struct(kind):
        for child, field in zip(values.flatten(), kind, strict=True):
            yield from _time_leaves(child, field.type)


def _convert(
    source: SourceBytes, batch: Any, name: str, column: ColumnType, block: bytes, first_line: int
) -> Any:
    values = batch.column(name)
    if values.type.equals(column.arrow):
        return values
    try:
        return column.from_text(values)
    except ConversionFailed as error:
        line = None
        if error.index is not None:
            filled = [number for number, text in enumerate(block.split(b"\n"), first_line) if text.strip()]
            line = filled[error.index] if error.index < len(filled) else None
        raise type_error(source, name, error.why, line) from None


def _diagnose(
    source: SourceBytes, block: bytes, first_line: int, declared: Declared, schema: Any
) -> SourceError:
    lines = block.split(b"\n")
    for number, text in enumerate(lines, first_line):
        if not text.strip():
            continue
        try:
            parse_block(text, schema)
        except pa.ArrowInvalid:
            unfinished = number == first_line + len(lines) - 1
            return _diagnose_line(source, text, number, declared, schema, unfinished=unfinished)
    return SourceError(
        f"{source.name}, lines {first_line} to {first_line + len(lines) - 1} cannot be parsed",
        code="source.malformed",
        why="the lines do not go together",
        todo="write one JSON object a line",
    )


def _diagnose_line(
    source: SourceBytes, text: bytes, number: int, declared: Declared, schema: Any, *, unfinished: bool
) -> SourceError:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        if unfinished:
            return SourceError(
                f"{source.name} is cut short in line {number}", code="source.truncated",
                why="its last line is not a whole JSON object", todo="deliver the file again, complete",
                context={"line": number},
            )  # fmt: skip
        found = None
    if not isinstance(found, dict):
        return SourceError(
            f"{source.name}, line {number} is not a JSON object",
            code="source.malformed",
            why="every line must be one whole object",
            todo="correct the line, or ask the sender for JSON lines",
            context={"line": number},
        )
    extra = [name for name in found if name not in declared]
    if extra:
        try:
            check_columns(source, list(found), declared)
        except SourceError as error:
            return error
    for name, value in found.items():
        try:
            parse_block(json.dumps({name: value}).encode(), schema)
        except pa.ArrowInvalid:
            return type_error(source, name, f"a value that does not fit {declared[name].text}", number)
    return SourceError(
        f"{source.name}, line {number} cannot be parsed",
        code="source.malformed",
        why="a key may stand in it twice",
        todo="write every key once",
        context={"line": number},
    )
