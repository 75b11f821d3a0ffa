"""Columns cut into the conditions that a search for weak slices tries.

For :mod:`airflow_provider_xops.evaluation._slice_search`. A column becomes cells (a value, or a bin of
numbers), and conditions are unions of cells: single values of a category, every unbroken range of bins of a
number or a time, and "is missing". A condition is SQL, so that what was found can be named from then on.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from airflow_provider_xops.lake.duckdb_box import open_box, sql_text

__all__ = ["Coded", "code_column", "column_sql", "has_values", "plain_column", "value_sql"]

# Quintiles give 14 ranges a number; with more bins the correction costs more than the sharper edges bring.
BINS = 5
# Of a category, so many of the most frequent values.
VALUES = 30


@dataclass(frozen=True)
class Coded:
    """One column as cells and conditions.

    :param cells: the cell of each row. :param members: conditions by cells, 1 where the cell belongs to it.
    :param conditions: the SQL of each condition.
    """

    name: str
    cells: Any
    members: Any
    conditions: tuple[str, ...]

    @property
    def cell_count(self) -> int:
        """How many cells there are."""
        return int(self.members.shape[1])

    def rows_of(self, condition: int) -> Any:
        """Which rows meet a condition."""
        return self.members[condition].astype(bool)[self.cells]


def code_column(name: str, column: pa.ChunkedArray, *, min_rows: int) -> Coded | None:
    """The column's cells and conditions; None where it has fewer than two cells, or a type that has none.

    :param min_rows: rarer values are no condition of their own, so nothing identifies a single row.
    """
    column = plain_column(column)
    kind = column.type
    text = pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind)
    if text or pt.is_boolean(kind):
        return _categories(name, column, min_rows=min_rows)
    # Not safely: an estimator sees whole numbers beyond 2**53 without their last digits too, and what is
    # below a microsecond moves no row across an edge.
    if pt.is_timestamp(kind) or pt.is_date(kind):
        moments = column.cast(pa.timestamp("us"), safe=False)
        return _ranges(name, moments.cast(pa.int64()), _moment, whole=True)
    if pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind):
        return _ranges(name, column.cast(pa.float64(), safe=False), _number, whole=False)
    return None


def column_sql(name: str) -> str:
    """A column's name as SQL has it, quoted where it must be.

    >>> column_sql("origin"), column_sql("order"), column_sql("dep time")
    ('origin', '"order"', '"dep time"')
    """
    plain = re.fullmatch(r"[a-z_][a-z0-9_]*", name) and name not in _reserved()
    return name if plain else '"' + name.replace('"', '""') + '"'


def value_sql(value: Any) -> str:
    """A plain value as SQL has it; a time with a zone in UTC, as DuckDB's session is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value) if np.isfinite(value) else f"{sql_text(str(value))}::DOUBLE"
    if isinstance(value, datetime):
        moment = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
        kind = "TIMESTAMP_NS" if getattr(value, "nanosecond", 0) else "TIMESTAMP"
        return f"{kind} {sql_text(moment.isoformat(sep=' '))}"
    return sql_text(str(value))


def has_values(kind: pa.DataType) -> bool:
    """Whether each value of a column of this type can be a slice, written as a condition."""
    kind = kind.value_type if pt.is_dictionary(kind) else kind
    text = pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind)
    number = pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind)
    moment = pt.is_timestamp(kind) or pt.is_date(kind) or pt.is_time(kind)
    return bool(text or number or moment or pt.is_boolean(kind))


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column without dictionaries, and with NaN as missing.

    To DuckDB a NaN is larger than every number; to a model it is missing.
    """
    if pt.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not pt.is_floating(column.type):
        return column
    if pt.is_float16(column.type):  # which DuckDB does not know
        column = column.cast(pa.float32())
    return pc.if_else(pc.fill_null(pc.is_nan(column), False), pa.scalar(None, column.type), column)


def _categories(name: str, column: pa.ChunkedArray, *, min_rows: int) -> Coded | None:
    encoded = pa.chunked_array(column).combine_chunks().dictionary_encode()
    codes = np.asarray(pc.fill_null(encoded.indices, -1))
    values = encoded.dictionary.to_pylist()
    counts = np.bincount(codes[codes >= 0], minlength=len(values))
    order = sorted(range(len(values)), key=lambda place: (-counts[place], str(values[place])))
    kept = [place for place in order if counts[place] >= min_rows][:VALUES]
    # Cells: the kept values, then all other values together, then missing.
    cell_of = np.full(len(values) + 1, len(kept))
    cell_of[kept] = np.arange(len(kept))
    cell_of[-1] = len(kept) + 1
    conditions = [f"{column_sql(name)} = {value_sql(values[place])}" for place in kept]
    members = [_row_of_cells([cell], len(kept) + 2) for cell in range(len(kept))]
    return _coded(name, cell_of[codes], members, conditions)


def _ranges(name: str, column: pa.ChunkedArray, text: Any, *, whole: bool) -> Coded | None:
    missing = np.asarray(pc.is_null(column))
    kind = np.int64 if whole else np.float64
    values = np.asarray(column.drop_null(), dtype=kind)
    if not whole:
        values = np.where(np.isinf(values), np.sign(values) * np.finfo(np.float64).max, values)
    edges = _edges(values, whole=whole)
    cells = np.full(len(missing), len(edges) + 1)
    cells[~missing] = np.searchsorted(edges, values, side="right")
    members, conditions, quoted = [], [], column_sql(name)
    for first in range(len(edges) + 1):
        for last in range(first, len(edges) + 1):
            if last - first == len(edges):
                continue  # every row that has a value
            parts = [f"{quoted} >= {text(edges[first - 1])}"] if first else []
            parts += [f"{quoted} < {text(edges[last])}"] if last < len(edges) else []
            conditions.append(" and ".join(parts))
            members.append(_row_of_cells(range(first, last + 1), len(edges) + 2))
    return _coded(name, cells, members, conditions)


def _edges(values: Any, *, whole: bool) -> Any:
    """Between the bins, each the first value of the next one; of few values, all but the smallest."""
    if not len(values):
        return np.zeros(0, dtype=values.dtype)
    few = np.unique(values[: 50 * BINS]) if len(values) > 50 * BINS else np.unique(values)
    if len(few) <= BINS:
        few = np.unique(values)
    if len(few) <= BINS:
        return few[1:]
    least, most = values.min(), values.max()
    edges = np.quantile(values, np.arange(1, BINS) / BINS, method="inverted_cdf")
    # A value that fills a bin gets it for itself: "no rain" and "rain", where most hours have none.
    unique, counts = np.unique(edges, return_counts=True)
    for value in unique[(counts > 1) | (unique == least)]:
        if value < most:
            edges = np.append(edges, values[values > value].min())
    edges = np.unique(edges if whole else _rounded(edges))
    return edges[(edges > least) & (edges <= most)]


def _rounded(edges: Any) -> Any:
    """Edges with as few digits as tell them apart: the condition is what is meant, to the last digit."""
    for digits in (4, 6, 9):
        rounded = np.array([float(f"{edge:.{digits}g}") for edge in edges])
        if len(np.unique(rounded)) == len(np.unique(edges)):
            return rounded
    return edges


def _coded(name: str, cells: Any, members: list[Any], conditions: list[str]) -> Coded | None:
    count = len(members[0]) if members else 0
    if (cells == count - 1).any() and count:
        members = [*members, _row_of_cells([count - 1], count)]
        conditions = [*conditions, f"{column_sql(name)} is null"]
    if len(members) < 2 and len(np.unique(cells)) < 2:
        return None
    # One byte a row: a search holds the cells of all columns at once.
    return Coded(name, cells.astype(np.uint8), np.array(members), tuple(conditions)) if members else None


def _row_of_cells(cells: Any, count: int) -> Any:
    row = np.zeros(count)
    row[list(cells)] = 1.0
    return row


def _number(value: Any) -> str:
    text = repr(float(value))
    return text.removesuffix(".0")


def _moment(microseconds: Any) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(microseconds))
    return value_sql(moment.replace(tzinfo=None))  # DuckDB's session is in UTC


@functools.cache
def _reserved() -> frozenset[str]:
    with open_box() as box:
        rows = box.execute(
            "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'"
        )
        return frozenset(name for (name,) in rows.fetchall())
