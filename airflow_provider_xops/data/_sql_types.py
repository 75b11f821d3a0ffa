"""Values of a database as typed Arrow arrays, and the types of its columns where the database tells.

For :mod:`airflow_provider_xops.data.source_sql`. PostgreSQL describes the columns of every answer (type
numbers of its catalog ``pg_type``); of a table, any database describes them through SQLAlchemy; of another
database's query, the values of the first rows show them. A declared schema is asked for wherever that leaves
a doubt.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from airflow_provider_xops.data.column_types import ColumnType, ConversionFailed
from airflow_provider_xops.errors import ArgumentError, SourceError

__all__ = ["array_of", "described", "observed", "reflected", "unknown_columns"]

# PostgreSQL's own numbers of its built-in types (src/include/catalog/pg_type.dat); they never change.
_POSTGRES = {
    16: "bool", 17: "binary", 18: "string", 19: "string", 20: "int64", 21: "int16", 23: "int32", 25: "string",
    26: "int64", 114: "string", 142: "string", 650: "string", 700: "float32", 701: "float64", 829: "string",
    869: "string", 1042: "string", 1043: "string", 1082: "date", 1114: "naive", 1184: "timestamp",
    2950: "string", 3802: "string",
    1000: "list<bool>", 1005: "list<int16>", 1007: "list<int32>", 1009: "list<string>", 1015: "list<string>",
    1016: "list<int64>", 1021: "list<float32>", 1022: "list<float64>",
}  # fmt: skip
_NUMERIC = 1700
_NO_PLACE = {1083: "time", 1266: "time with time zone", 1186: "interval"}
MAX_PRECISION = 38


def described(description: Sequence[Any], *, timezone: str | None) -> dict[str, str | None]:
    """Columns of an answer as PostgreSQL describes them: name to type text (None: it does not tell).

    :raises SourceError: ``source.unsupported_type``; :raises ArgumentError: ``argument.naive_timestamp``.
    """
    found: dict[str, str | None] = {}
    for column in description:
        name, number = column[0], column[1]
        if number in _NO_PLACE:
            raise _no_place(name, _NO_PLACE[number])
        text = _POSTGRES.get(number)
        if number == _NUMERIC and column[4] and column[4] <= MAX_PRECISION:
            scale = column[5] or 0
            text = f"decimal({column[4]},{scale})" if 0 <= scale <= column[4] else None
        found[name] = local_time(name, timezone) if text == "naive" else text
    return found


def reflected(columns: Sequence[Mapping[str, Any]], *, timezone: str | None) -> dict[str, str | None]:
    """Columns of a table as SQLAlchemy reflects them.

    :raises SourceError: ``source.unsupported_type``; :raises ArgumentError: ``argument.naive_timestamp``.
    """
    return {column["name"]: _reflected(column["name"], column["type"], timezone) for column in columns}


def observed(
    names: Sequence[str], rows: Sequence[Sequence[Any]], *, timezone: str | None
) -> dict[str, str | None]:
    """Columns as the values of some rows show them (None: no value, or several kinds of values).

    :raises SourceError: ``source.unsupported_type``; :raises ArgumentError: ``argument.naive_timestamp``.
    """
    return {
        name: _observed(name, [row[index] for row in rows if row[index] is not None], timezone)
        for index, name in enumerate(names)
    }


def unknown_columns(subject: str, names: Sequence[str]) -> ArgumentError:
    """The error of columns whose types nobody tells."""
    return ArgumentError(
        f"the types of columns {', '.join(names[:20])} of {subject} are not known",
        code="argument.schema_needed",
        why="the database does not tell, and the first rows have no value or several kinds of values",
        todo="pass a schema that names every column with its type",
        context={"columns": list(names)},
    )


def array_of(
    values: Sequence[Any],
    column: ColumnType,
    *,
    name: str,
    subject: str,
    first_row: int,
    timezone: str | None,
) -> Any:
    """One column's values as declared: widened, never reinterpreted; a local time needs a zone.

    :raises SourceError: ``source.types``, with the row's number and never its value.
    """
    try:
        return _array(values, column, timezone)
    except (ConversionFailed, pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        index = getattr(error, "index", None)
        if index is None:
            index = next((i for i, value in enumerate(values) if not _fits(value, column, timezone)), 0)
        why = error.why if isinstance(error, ConversionFailed) else _why(values[index], column)
        raise SourceError(
            f"{subject}, row {first_row + index + 1}: column {name!r} does not have its declared type",
            code="source.types",
            why=why,
            todo="declare the column with the type that it has, or convert it in the query",
            context={"column": name, "row": first_row + index + 1},
        ) from None


def local_time(name: str, timezone: str | None) -> str:
    """The type text of a column of times without a zone.

    :raises ArgumentError: ``argument.naive_timestamp``.
    """
    if timezone is None:
        raise ArgumentError(
            f"column {name!r} holds times without a zone", code="argument.naive_timestamp",
            why="a local time is not a moment until its zone is known",
            todo="pass timezone='Area/City' (or 'UTC') to the source, or a schema",
        )  # fmt: skip
    return f"timestamp[{timezone}]"


def _array(values: Sequence[Any], column: ColumnType, timezone: str | None) -> Any:
    types, goal = pa.types, column.arrow
    kinds = {type(value) for value in values if value is not None}
    if types.is_timestamp(goal) or types.is_date(goal):
        if kinds <= {str}:  # SQLite keeps times as text
            zoned = column
            if types.is_timestamp(goal) and column.zone is None and timezone and not _has_offset(values):
                zoned = ColumnType(column.text, column.arrow, timezone)
            return zoned.from_text(pa.array(values, pa.string()))
        return _times(values, column, timezone) if types.is_timestamp(goal) else _dates(values, goal)
    if types.is_string(goal):
        return pa.array([_text(value) for value in values], goal)
    if types.is_boolean(goal):
        return pa.array([_boolean(value) for value in values], goal)
    if bool in kinds and not types.is_nested(goal):
        raise ConversionFailed(None, f"a truth value where {column.text} is declared")
    if types.is_binary(goal):
        return pa.array([None if value is None else bytes(value) for value in values], goal)
    if types.is_floating(goal) and not kinds <= {int, float}:
        raise ConversionFailed(None, f"a value of type {_names(kinds)} where {column.text} is declared")
    if types.is_decimal(goal) and float in kinds:  # SQLite keeps decimals so; repr has what was written
        values = [Decimal(repr(value)) if isinstance(value, float) else value for value in values]
    return pa.array(values, goal)


def _times(values: Sequence[Any], column: ColumnType, timezone: str | None) -> Any:
    for index, value in enumerate(values):
        if value is not None and not isinstance(value, datetime):
            raise ConversionFailed(index, f"a {type(value).__name__} where {column.text} is declared")
    naive = [value is not None and value.tzinfo is None for value in values]
    if not any(naive):
        return pa.array(values, column.arrow)
    if column.zone is None and timezone is None:
        raise ConversionFailed(naive.index(True), "a time without a zone; declare it as timestamp[ZONE]")
    if not all(is_naive for is_naive, value in zip(naive, values, strict=True) if value is not None):
        raise ConversionFailed(naive.index(False), "times with and without a zone in one column")
    zoned = column if column.zone else ColumnType(column.text, column.arrow, timezone)
    return zoned.from_typed(pa.array(values, pa.timestamp("us")))


def _dates(values: Sequence[Any], goal: Any) -> Any:
    for index, value in enumerate(values):
        if value is not None and (isinstance(value, datetime) or not isinstance(value, date)):
            raise ConversionFailed(index, f"a {type(value).__name__} where date is declared")
    return pa.array(values, goal)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict | list):  # a JSON column, parsed by its driver
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    if isinstance(value, uuid.UUID) or type(value).__module__ == "ipaddress":
        return str(value)
    raise TypeError(type(value).__name__)


def _boolean(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    if value in (0, 1) and isinstance(value, int):  # SQLite and MySQL have no truth values of their own
        return bool(value)
    raise TypeError(type(value).__name__)


def _fits(value: Any, column: ColumnType, timezone: str | None) -> bool:
    try:
        _array([value], column, timezone)
    except (ConversionFailed, pa.ArrowException, ValueError, TypeError, OverflowError):
        return False
    return True


def _why(value: Any, column: ColumnType) -> str:
    return f"a value of type {type(value).__name__} that does not fit {column.text}"


def _names(kinds: set[type]) -> str:
    return ", ".join(sorted(kind.__name__ for kind in kinds))


def _has_offset(values: Sequence[Any]) -> bool:
    first = next((value for value in values if value), "")
    return first.endswith("Z") or first[-6:-5] in ("+", "-")


def _reflected(name: str, kind: Any, timezone: str | None) -> str | None:
    import sqlalchemy as sa

    if isinstance(kind, sa.Time | sa.Interval):
        raise _no_place(name, str(kind))
    for family, text in (
        (sa.SmallInteger, "int16"), (sa.BigInteger, "int64"), (sa.Integer, "int64"), (sa.Boolean, "bool"),
        (sa.Date, "date"), (sa.Float, "float64"), (sa.String, "string"), (sa.Uuid, "string"),
        (sa.JSON, "string"), (sa.LargeBinary, "binary"),
    ):  # fmt: skip
        if isinstance(kind, family):
            return text
    if isinstance(kind, sa.DateTime):
        return "timestamp" if kind.timezone else local_time(name, timezone)
    if isinstance(kind, sa.Numeric) and kind.precision and kind.precision <= MAX_PRECISION:
        return f"decimal({kind.precision},{kind.scale or 0})"
    return None


def _observed(name: str, values: Sequence[Any], timezone: str | None) -> str | None:
    kinds = {type(value) for value in values}
    if kinds & {time, timedelta}:
        raise _no_place(name, _names(kinds))
    if kinds == {datetime}:
        return "timestamp" if all(value.tzinfo for value in values) else local_time(name, timezone)
    if kinds == {int, float}:
        return "float64"
    if kinds == {Decimal} and all(value.is_finite() for value in values):
        scale = max(-int(value.as_tuple().exponent) for value in values)
        return f"decimal({MAX_PRECISION},{max(scale, 0)})"
    known = {
        int: "int64", float: "float64", bool: "bool", str: "string", date: "date", bytes: "binary",
        memoryview: "binary", uuid.UUID: "string", dict: "string",
    }  # fmt: skip
    return known.get(next(iter(kinds))) if len(kinds) == 1 else None


def _no_place(name: str, kind: str) -> SourceError:
    return SourceError(
        f"column {name!r} is of type {kind}", code="source.unsupported_type",
        why="a Delta table has no such type",
        todo="convert it in the query, for example to text or to seconds, or leave it out with columns",
        context={"column": name},
    )  # fmt: skip
