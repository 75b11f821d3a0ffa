"""The columns of a frame as DuckDB sees them while it is profiled: names of our own, kinds.

Private to :mod:`airflow_provider_xops.quality.profiling`. Every column ``i`` is there twice: ``r<i>`` as it
came, ``c<i>`` as figures are taken from it: floats without NaN and infinities, times as microseconds since
1970, text as text. So no name of a user's column ever stands in SQL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.lake.duckdb_box import open_box
from airflow_provider_xops.lake.schema import type_name
from airflow_provider_xops.quality.frames import MIXED

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from airflow_provider_xops.quality.engine import Frame

__all__ = ["Column", "Kind", "Session", "session"]

VIEW = "_xops_profiled"
_NAMED = re.compile(r"\b[cr](\d+)\b")
# DuckDB plans a statement in a time that grows with the square of its aggregates, at 4,000 in minutes.
TOGETHER = 200


class Kind(StrEnum):
    """What can be said about a column."""

    NUMBER = "number"
    TEXT = "text"
    BOOLEAN = "boolean"
    DATE = "date"
    TIMESTAMP = "timestamp"
    BINARY = "binary"
    NESTED = "nested"
    OTHER = "other"


@dataclass(frozen=True)
class Column:
    """One column: ``c`` and ``r`` are its names in the view (see the module)."""

    name: str
    position: int
    type: str
    kind: Kind
    is_float: bool = False
    is_whole: bool = False

    @property
    def c(self) -> str:
        """The column that figures are taken from."""
        return f"c{self.position}"

    @property
    def r(self) -> str:
        """The column as it came."""
        return f"r{self.position}"

    @property
    def is_time(self) -> bool:
        """Dates and timestamps: microseconds since 1970 in ``c``."""
        return self.kind in (Kind.DATE, Kind.TIMESTAMP)

    @property
    def is_scalar(self) -> bool:
        """Whether values can be counted one by one."""
        return self.kind not in (Kind.NESTED, Kind.OTHER)


@dataclass(frozen=True)
class Session:
    """A DuckDB with the rows, and their columns. ``skipped`` cannot be looked at (mixed types).

    :param shown: for each column, how ``r<i>`` and ``c<i>`` come from the rows.
    """

    connection: duckdb.DuckDBPyConnection
    columns: tuple[Column, ...]
    shown: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]

    def sql(self, text: str) -> str:
        """A statement about ``{rows}``: of these the columns that it names, for DuckDB prepares every one."""
        named = sorted({int(number) for number in _NAMED.findall(text)})
        chosen = ", ".join(self.shown[number] for number in named) or "1 AS none"
        return text.replace("{rows}", f"(SELECT {chosen} FROM {VIEW})")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The result of a SELECT about ``{rows}``."""
        found: list[tuple[Any, ...]] = self.connection.execute(self.sql(sql)).fetchall()
        return found

    def row(self, expressions: Sequence[str]) -> list[Any]:
        """Aggregates over all rows; :data:`TOGETHER` of them in one scan."""
        found: list[Any] = []
        for start in range(0, len(expressions), TOGETHER):
            asked = ", ".join(expressions[start : start + TOGETHER])
            found += self.rows(f"SELECT {asked} FROM {{rows}}")[0]
        return found


@contextmanager
def session(frame: Frame, *, folder: Path | None, memory_limit: str) -> Iterator[Session]:
    """A DuckDB over the frame.

    :param folder: where it may spill to; None: it must do with its memory.
    """
    connection = open_box(folder=folder, memory_limit=memory_limit)
    try:
        relation = frame.relation(connection)
        fields = [field for field in frame.schema if MIXED.keys().isdisjoint(field.metadata or {})]
        skipped = [field for field in frame.schema if field not in fields]
        columns = tuple(_column(field, position) for position, field in enumerate(fields))
        shown = tuple(
            f"{_name(inside)} AS {column.r}, {_clean(column, _name(inside))} AS {column.c}"
            for column, inside in zip(columns, relation.columns, strict=True)
        )
        relation.create_view(VIEW)
        yield Session(connection, columns, shown, tuple((field.name, str(field.type)) for field in skipped))
    finally:
        connection.close()


def _column(field: pa.Field, position: int) -> Column:
    kind = _kind(field.type)
    import pyarrow as pa

    whole = pa.types.is_integer(field.type) or (pa.types.is_decimal(field.type) and field.type.scale == 0)
    return Column(
        field.name, position, type_name(field.type), kind, bool(pa.types.is_floating(field.type)), bool(whole)
    )


def _kind(kind: pa.DataType) -> Kind:
    import pyarrow as pa

    is_ = pa.types
    if is_.is_dictionary(kind):
        return _kind(kind.value_type)
    if is_.is_boolean(kind):
        return Kind.BOOLEAN
    if is_.is_integer(kind) or is_.is_floating(kind) or is_.is_decimal(kind):
        return Kind.NUMBER
    if is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind):
        return Kind.TEXT
    if is_.is_date(kind):
        return Kind.DATE
    if is_.is_timestamp(kind):
        return Kind.TIMESTAMP
    if is_.is_binary(kind) or is_.is_large_binary(kind) or is_.is_fixed_size_binary(kind):
        return Kind.BINARY
    return Kind.NESTED if is_.is_nested(kind) else Kind.OTHER


def _clean(column: Column, inside: str) -> str:
    if column.is_float:
        return f"CASE WHEN isfinite({inside}) THEN {inside}::DOUBLE END"
    if column.kind is Kind.NUMBER and column.type.startswith("decimal"):
        return f"{inside}::DOUBLE"
    if column.is_time:
        return f"epoch_us({inside})"
    return f"{inside}::VARCHAR" if column.kind is Kind.TEXT else inside


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
