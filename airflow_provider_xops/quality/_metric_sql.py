"""The statistics that a metric plan can ask of a column, as DuckDB aggregates.

For :mod:`~airflow_provider_xops.quality.metrics`. All columns of a partition are looked at in one query. NaN
counts as missing, as in pandas; figures of a column that holds an infinity are None, not infinite.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from airflow_provider_xops.data.sql import Query
from airflow_provider_xops.errors import ArgumentError, DataError
from airflow_provider_xops.lake.duckdb_box import open_box
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import schema_of
from airflow_provider_xops.quality.frames import LakeFrame
from airflow_provider_xops.records import DatasetRef

__all__ = [
    "STATISTICS",
    "ColumnFigures",
    "Wanted",
    "as_mapping",
    "default_statistics",
    "has_statistic",
    "normalized",
    "scalar_figure",
    "wanted",
]

STATISTICS = ("null_rate", "distinct_count", "mean", "sd", "min", "max", "median", "quantile_0.95")
DATASET = "dataset"
ALL_COLUMNS = "*"
DEFAULT = "default"

_QUANTILE = re.compile(r"quantile_(0(?:\.\d+)?|1(?:\.0+)?|\.\d+)")
_NUMERIC_ONLY = ("mean", "sd", "min", "max", "quantile")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One figure of one column: ``name`` is the metric's, ``statistic`` normalized."""

    name: str
    column: str
    statistic: str


def normalized(statistic: str) -> str:
    """The one spelling of a statistic.

    :raises ArgumentError: ``argument.metric``: there is no such statistic.

    >>> normalized("median"), normalized("quantile_.950")
    ('quantile_0.5', 'quantile_0.95')
    """
    if statistic == "median":
        return "quantile_0.5"
    if found := _QUANTILE.fullmatch(statistic):
        return f"quantile_{float(found[1]):g}"
    if statistic not in STATISTICS:
        raise ArgumentError(
            f"there is no statistic {str(statistic)[:80]!r}",
            code="argument.metric",
            todo=f"use one of {', '.join(STATISTICS)} (quantile_Q for any Q from 0 to 1)",
        )
    return statistic


def default_statistics(kind: pa.DataType) -> tuple[str, ...]:
    """What is asked of a column where the plan does not say: by its type."""
    if pa.types.is_boolean(kind):
        return ("null_rate", "mean")
    if _is_number(kind):
        return ("null_rate", "mean", "quantile_0.5")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return ("null_rate", "distinct_count")
    return ("null_rate",)


def as_mapping(columns: Mapping[str, Sequence[str]] | Sequence[str] | None) -> dict[str, tuple[str, ...]]:
    """What a plan asks, in one form: column (``*``: all) to statistics (``default``: by its type)."""
    if columns is None:
        return {ALL_COLUMNS: (DEFAULT,)}
    if not isinstance(columns, Mapping):
        return dict.fromkeys(sorted(columns), (DEFAULT,))
    return {
        name: tuple(sorted({one if one == DEFAULT else normalized(one) for one in columns[name]}))
        for name in sorted(columns)
    }


def wanted(columns: Mapping[str, Sequence[str]] | Sequence[str] | None, schema: pa.Schema) -> list[Wanted]:
    """The figures that a plan asks of a table with these columns; ``*`` asks of those that can answer.

    :raises ArgumentError: ``argument.column``: no such column; ``argument.metric``: a statistic that its
        type does not have.
    """
    asked = as_mapping(columns)
    unknown = sorted(set(asked) - {*schema.names, ALL_COLUMNS})
    if unknown:
        raise ArgumentError(
            f"there is no column {unknown[0]} to measure", code="argument.column",
            todo=f"use some of {', '.join(schema.names)}",
        )  # fmt: skip
    found: dict[Wanted, None] = {}
    for key, statistics in asked.items():
        for name in schema.names if key == ALL_COLUMNS else [key]:
            kind = schema.field(name).type
            for statistic in statistics:
                for one in default_statistics(kind) if statistic == DEFAULT else (statistic,):
                    if has_statistic(kind, one):
                        found[
                            Wanted(name=f"{normalized(one)}:{name}", column=name, statistic=normalized(one))
                        ] = None
                    elif key != ALL_COLUMNS:
                        raise ArgumentError(
                            f"column {name} has no {one}", code="argument.metric",
                            why=f"its type is {kind}", todo="ask for null_rate or distinct_count",
                        )  # fmt: skip
    return list(found)


def has_statistic(kind: pa.DataType, statistic: str) -> bool:
    """Whether a column of this type has the statistic."""
    number = _is_number(kind) or bool(pa.types.is_boolean(kind))
    return number or not normalized(statistic).startswith(_NUMERIC_ONLY)


class ColumnFigures:
    """What a plan asks of the columns of one version, partition by partition, on one DuckDB.

    :param newest: a column of dates or times, whose newest moment is asked for too.
    :raises ArgumentError: ``argument.column``, ``argument.metric``: the plan does not fit the columns.
    """

    def __init__(
        self,
        lake: Lake,
        ref: DatasetRef,
        columns: Mapping[str, Sequence[str]] | Sequence[str] | None,
        *,
        newest: str | None,
    ) -> None:
        self._lake, self._ref = lake, ref
        self._schema = schema_of(lake, ref)
        self._asked = wanted(columns, self._schema)
        self._newest = newest
        _check_times(newest, self._schema)

    @contextmanager
    def session(self) -> Iterator[Any]:
        """The DuckDB to call :meth:`of` with."""
        with self._lake.storage.scratch() as folder:
            connection = open_box(folder=folder)
            try:
                yield connection
            finally:
                connection.close()

    def of(self, connection: Any, partition: str) -> tuple[int, dict[str, float | None], float | None]:
        """One partition's rows, figures, and newest moment (seconds since 1970).

        :raises DataError: ``data.metrics``: a column holds values that cannot be reckoned with.
        """
        try:
            rows = LakeFrame(self._lake, self._ref, [partition]).relation(connection)
            # By position: DuckDB renames a column whose name differs from another one's by case only.
            names = dict(zip(self._schema.names, rows.columns, strict=True))
            expressions = ["count(*)"]
            expressions += [_expression(one, _name(names[one.column]), self._schema) for one in self._asked]
            expressions.append(
                "NULL" if self._newest is None else f"epoch(max({_name(names[self._newest])}))"
            )
            count, *values, last = rows.aggregate(", ".join(expressions)).fetchall()[0]
        except duckdb.OutOfMemoryException:
            raise DataError(
                f"the metrics of {self._ref}, partition {partition}, need more memory than there is",
                code="data.metrics_memory", why="exact quantiles and distinct counts keep their values",
                todo="leave them out for the widest columns",
            ) from None  # fmt: skip
        except duckdb.Error as error:
            raise DataError(
                f"the metrics of {self._ref}, partition {partition}, cannot be computed", code="data.metrics",
                why=f"{type(error).__name__}; DuckDB's message may quote values and is not repeated here",
                todo="measure fewer columns to find the one",
            ) from None  # fmt: skip
        figures = {one.name: _finite(value) for one, value in zip(self._asked, values, strict=True)}
        return int(count), figures, _finite(last)


def scalar_figure(lake: Lake, ref: DatasetRef, partition: str, query: Query, *, name: str) -> float | None:
    """The one number that a query over the table ``dataset`` gives; None where it gives null.

    :raises ArgumentError: ``argument.sql``: it is not one number; what the box refuses.
    """
    with lake.storage.scratch() as folder, query.session(folder, memory_limit="1GB") as session:
        session.close_box(lake, [ref])
        session.bind(lake, DATASET, ref, [partition])
        result = session.run(partition)
        columns = next(result).names
        found = [value for batch in result for value in batch.column(0).to_pylist()]
    if len(columns) != 1 or len(found) > 1 or not all(_is_figure(value) for value in found):
        raise ArgumentError(
            f"the SQL metric {name} does not give one number", code="argument.sql",
            why=f"it gives {len(columns)} column(s) and {len(found)} row(s)"
            if len(columns) != 1 or len(found) > 1
            else "it gives a value that is no number",
            todo=f"write for example SELECT avg(x) FROM {DATASET}",
        )  # fmt: skip
    return _finite(found[0]) if found else None


def _expression(one: Wanted, column: str, schema: pa.Schema) -> str:
    kind = schema.field(one.column).type
    value = f"CASE WHEN isnan({column}) THEN NULL ELSE {column} END" if _is_float(kind) else column
    if one.statistic == "null_rate":
        return f"count(*) FILTER (WHERE ({value}) IS NULL) / nullif(count(*), 0)"
    if one.statistic == "distinct_count":
        return f"count(DISTINCT {value})"
    number = f"CAST({value} AS DOUBLE)"
    if one.statistic in ("min", "max"):
        return f"{one.statistic}({number})"
    if one.statistic == "mean":
        return f"avg({number})"
    if one.statistic == "sd":
        # DuckDB gives up on a whole query whose deviation overflows.
        finite = f"isfinite({number})"
        return f"CASE WHEN bool_and({finite}) THEN stddev_samp({number}) FILTER (WHERE {finite}) END"
    return f"quantile_cont({number}, {one.statistic.removeprefix('quantile_')})"


def _check_times(column: str | None, schema: pa.Schema) -> None:
    times = [one.name for one in schema if pa.types.is_timestamp(one.type) or pa.types.is_date(one.type)]
    if column is not None and column not in times:
        raise ArgumentError(
            f"freshness cannot be read from {column}", code="argument.column",
            why="it is no column of dates or times",
            todo=f"use one of {', '.join(times)}" if times else "leave freshness out: the table has none",
        )  # fmt: skip


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_float(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind))


def _is_figure(value: Any) -> bool:
    return value is None or (hasattr(value, "__float__") and not isinstance(value, str))


def _finite(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
