"""Aggregates as SQL, with pandas' meaning and pandas' result types.

For the execution engine. A plan names the aggregates it needs, which are computed together with those of all
other plans in one scan, and says what Great Expectations gets from their values. What has to see groups or
the order of values (distinct values, quantiles) runs a query of its own over its column alone, one after the
other, so that only one column's values are in memory at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from airflow_provider_xops.quality.duckdb_engine.columns import Cannot, Column, literal
from airflow_provider_xops.quality.duckdb_engine.map_conditions import domain_of, groups_query
from airflow_provider_xops.quality.duckdb_engine.session import VIEW, Session

__all__ = ["BY_DISTINCT_VALUES", "Plan", "compile_aggregate", "distinct_values"]

_NUMBERS = ("int", "float")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a metric is computed.

    :param needs: aggregates over the view, computed before.
    :param finish: the metric's value from theirs; may raise :class:`Cannot`.
    """

    needs: tuple[str, ...]
    finish: Callable[[dict[str, Any]], Any]


def compile_aggregate(
    name: str, domain: Mapping[str, Any], values: Mapping[str, Any], session: Session
) -> Plan | None:
    """The plan of a metric; None for a metric that is no aggregate known here.

    :raises Cannot: pandas has to compute it.
    """
    if name == "table.row_count":
        return _row_count(domain, session)
    compiler = _COMPILERS.get(name)
    if compiler is None:
        return None
    column = session.columns.get(str(domain.get("column")))
    if column is None:
        raise Cannot("there is no such column")
    if column.kind in ("none", "other"):
        raise Cannot("the column is of a type that pandas treats in its own way")
    rows = domain_of(domain, session.columns)
    return compiler(column, rows, values, session)


def _row_count(domain: Mapping[str, Any], session: Session) -> Plan:
    rows = domain_of(domain, session.columns)
    if rows == "TRUE":
        return Plan(needs=(), finish=lambda _: session.frame.rows)
    text = f"count(*) FILTER (WHERE {rows})"
    return Plan(needs=(text,), finish=lambda found: int(found[text]))


def _over(function: str, rows: str) -> str:
    return function if rows == "TRUE" else f"{function} FILTER (WHERE {rows})"


def _there(column: Column, rows: str) -> str:
    return f"({rows} AND {column.sql} IS NOT NULL)"


def _facts(column: Column, session: Session) -> tuple[str, ...]:
    """What the column's type in pandas hangs on."""
    if column.kind != "int":
        return ()
    wide = (f"min({column.sql})", f"max({column.sql})") if column.type.bit_width == 64 else ()
    return (*session.presence(column.name), *wide)


def _numbers_only(column: Column) -> None:
    if column.kind not in _NUMBERS:
        raise Cannot("pandas computes this with numbers of another kind")


def _end(function: str) -> Callable[..., Plan]:
    def compiler(column: Column, rows: str, _: Any, session: Session) -> Plan:
        if column.kind in ("bool", "decimal", "float32"):
            raise Cannot("pandas has its own extremes of this type")
        text = _over(f"{function}({column.sql})", rows)
        missing = session.presence(column.name)[0]

        def finish(found: dict[str, Any]) -> Any:
            if found[text] is None:
                raise Cannot("there are no values")
            if column.kind == "date" and found[missing]:
                raise Cannot("pandas cannot order dates among missing ones")
            return _as_in_pandas(found[text], column, session)

        return Plan(needs=(text, missing, *_facts(column, session)), finish=finish)

    return compiler


def _as_in_pandas(value: Any, column: Column, session: Session) -> Any:
    if column.kind == "int":
        return (
            session.dtype(column.name).type(value)
            if session.dtype(column.name) != np.dtype(object)
            else value
        )
    if column.kind == "float":
        return np.float64(value)
    if column.kind in ("time", "time_utc"):
        import pandas as pd

        moment = pd.Timestamp(value)
        return moment.tz_convert("UTC") if moment.tz is not None else moment
    return value


def _mean(column: Column, rows: str, _: Any, session: Session) -> Plan:
    _numbers_only(column)
    text = _over(f"avg(CAST({column.sql} AS DOUBLE))", rows)
    return Plan(needs=(text,), finish=lambda found: _float(found[text]))


def _deviation(column: Column, rows: str, _: Any, session: Session) -> Plan:
    _numbers_only(column)
    text = _over(f"stddev_samp(CAST({column.sql} AS DOUBLE))", rows)
    return Plan(needs=(text,), finish=lambda found: _float(found[text]))


def _sum(column: Column, rows: str, _: Any, session: Session) -> Plan:
    _numbers_only(column)
    whole = column.kind == "int"
    text = _over(f"sum({column.sql if whole else f'CAST({column.sql} AS DOUBLE)'})", rows)

    def finish(found: dict[str, Any]) -> Any:
        total = found[text]
        if total is None:
            raise Cannot("there are no values")
        if not whole:
            return np.float64(total)
        if session.dtype(column.name) == np.float64:
            return np.float64(total)
        if session.dtype(column.name) == np.dtype(object):
            return int(total)
        if not -(2**63) <= total < 2**63:
            raise Cannot("the sum outgrows 64 bits")
        return np.int64(total)

    return Plan(needs=(text, *_facts(column, session)), finish=finish)


def _float(value: Any) -> Any:
    return np.float64(math.nan if value is None else value)


def _count(column: Column, rows: str, _: Any, session: Session) -> Plan:
    text = _over(f"count({column.sql})", rows)
    return Plan(needs=(text,), finish=lambda found: np.int64(found[text]))


def _distinct_count(column: Column, rows: str, _: Any, session: Session) -> Plan:
    if column.kind == "bool":
        raise Cannot("pandas has its own way with values of this type")
    query = groups_query((column,), _there(column, rows))
    return Plan(needs=(), finish=lambda _: int(session.remembered(query)[0]))


def _between_count(column: Column, rows: str, values: Mapping[str, Any], session: Session) -> Plan:
    _numbers_only(column)
    least, most = values.get("min_value"), values.get("max_value")
    if (least is None) is (most is None):
        raise Cannot("pandas has its own answer to these bounds")
    strict = values.get("strict_min") if most is None else values.get("strict_max")
    operator = (">" if most is None else "<") + ("" if strict else "=")
    value = f"CAST({column.sql} AS DOUBLE)"
    bound = literal(float(least if most is None else most), column)  # type: ignore[arg-type]
    text = f"count(*) FILTER (WHERE {rows} AND {value} {operator} {bound})"
    # NumPy's integer: the library divides by counts that may be zero.
    return Plan(needs=(text,), finish=lambda found: np.int64(found[text]))


def _histogram(column: Column, rows: str, values: Mapping[str, Any], session: Session) -> Plan:
    _numbers_only(column)
    bins = values.get("bins")
    try:
        edges = [float(edge) for edge in bins]  # type: ignore[union-attr]
    except (TypeError, ValueError):
        raise Cannot("pandas finds the bins") from None
    if len(edges) < 2 or any(not math.isfinite(one) for one in edges) or edges != sorted(edges):
        raise Cannot("pandas finds the bins")
    value = f"CAST({column.sql} AS DOUBLE)"
    counts = []
    for place, (low, high) in enumerate(pairwise(edges)):
        last = "=" if place == len(edges) - 2 else ""
        counts.append(
            f"count(*) FILTER (WHERE {rows} AND {value} >= {literal(low, column)}"
            f" AND {value} <{last} {literal(high, column)})"
        )
    return Plan(needs=tuple(counts), finish=lambda found: [np.int64(found[text]) for text in counts])


def _median(column: Column, rows: str, _: Any, session: Session) -> Plan:
    _numbers_only(column)
    text = _over(f"count({column.sql})", rows)

    def finish(found: dict[str, Any]) -> Any:
        count = int(found[text])
        if not count:
            return np.float64(math.nan)
        ranks = {(count - 1) // 2, count // 2}
        low, high = (
            _ranked(column, rows, ranks, count, session)[rank] for rank in sorted((min(ranks), max(ranks)))
        )
        return np.float64(np.mean([np.float64(low), np.float64(high)]))

    return Plan(needs=(text, *_facts(column, session)), finish=finish)


def _quantiles(column: Column, rows: str, values: Mapping[str, Any], session: Session) -> Plan:
    _numbers_only(column)
    method = values.get("allow_relative_error") or "nearest"
    quantiles = values.get("quantiles")
    if method not in ("linear", "lower", "higher", "midpoint", "nearest") or not isinstance(
        quantiles, list | tuple
    ):
        raise Cannot("pandas has its own answer to this")
    if not quantiles or not all(isinstance(one, int | float) and 0 <= one <= 1 for one in quantiles):
        raise Cannot("pandas has its own answer to this")
    text = _over(f"count({column.sql})", rows)
    shares = [float(one) for one in quantiles]

    def finish(found: dict[str, Any]) -> Any:
        series = _interpolated(column, rows, shares, method, int(found[text]), session)
        return series.tolist()

    return Plan(needs=(text, *_facts(column, session)), finish=finish)


def _outliers(column: Column, rows: str, values: Mapping[str, Any], session: Session) -> Plan:
    _numbers_only(column)
    from great_expectations.expectations.metrics.column_aggregate_metrics.column_outlier_statistics import (
        OutlierStatistics,
    )

    if values.get("method") == "iqr":
        text = _over(f"count({column.sql})", rows)

        def quartiles(found: dict[str, Any]) -> Any:
            if not found[text]:
                raise Cannot("there are no values")
            first, third = (
                float(one)
                for one in _interpolated(column, rows, [0.25, 0.75], "linear", int(found[text]), session)
            )
            if not (math.isfinite(first) and math.isfinite(third)):
                raise Cannot("the quartiles are not finite")
            return OutlierStatistics(lower_reference=first, upper_reference=third, spread=third - first)

        return Plan(needs=(text, *_facts(column, session)), finish=quartiles)
    if values.get("method") != "std":
        raise Cannot("pandas has its own answer to this")
    mean, spread = _mean(column, rows, None, session), _deviation(column, rows, None, session)

    def moments(found: dict[str, Any]) -> Any:
        center, wide = float(mean.finish(found)), float(spread.finish(found))
        if not (math.isfinite(center) and math.isfinite(wide)):
            raise Cannot("the moments are not finite")
        return OutlierStatistics(lower_reference=center, upper_reference=center, spread=wide)

    return Plan(needs=(*mean.needs, *spread.needs), finish=moments)


def _interpolated(
    column: Column, rows: str, shares: list[float], method: str, count: int, session: Session
) -> Any:
    """The quantiles as :func:`numpy.quantile` interpolates them, from the few values it looks at."""
    if not count:
        raise Cannot("there are no values")
    virtual = [(count - 1) * share for share in shares]
    places: list[tuple[int, int, float]] = []
    for place in virtual:
        low, high = math.floor(place), math.ceil(place)
        if method == "lower":
            places.append((low, low, 0.0))
        elif method == "higher":
            places.append((high, high, 0.0))
        elif method == "nearest":
            nearest = int(np.around(place))
            places.append((nearest, nearest, 0.0))
        else:
            weight = place - low if method == "linear" else 0.5 if low != high else 0.0
            places.append((low, min(low + 1, count - 1), weight))
    ranked = _ranked(column, rows, {rank for low, high, _ in places for rank in (low, high)}, count, session)
    whole = column.kind == "int" and session.dtype(column.name) != np.float64
    if whole and session.dtype(column.name) == np.dtype(object):
        raise Cannot("pandas has its own quantiles of large whole numbers")
    if whole and any(
        ranked[high] - ranked[low] >= 2 ** (column.type.bit_width - 1) for low, high, _ in places
    ):
        raise Cannot("the distance of two neighboring values outgrows the column's type, and NumPy's wraps")
    if whole and method in ("lower", "higher", "nearest"):
        return np.array([int(ranked[low]) for low, _, _ in places], np.int64)
    found = []
    for low, high, weight in places:
        first, last = np.float64(ranked[low]), np.float64(ranked[high])
        with np.errstate(invalid="ignore"):
            step = last - first
            # Between infinities the step is NaN, and so is the quantile.
            between = last - step * (1 - weight) if weight >= 0.5 else first + step * weight
            found.append(first if method in ("lower", "higher", "nearest") else between)
    return np.array(found, np.float64)


def _ranked(column: Column, rows: str, ranks: set[int], count: int, session: Session) -> dict[int, Any]:
    """The values of these ranks (0: the least) among the values that are there."""
    ordered = sorted(ranks)
    # quantile_disc(q) gives the value of rank ceil(q * n) - 1; half a rank of room keeps rounding out of it.
    shares = ", ".join(f"CAST('{(rank + 0.5) / count!r}' AS DOUBLE)" for rank in ordered)
    query = f"SELECT quantile_disc({column.sql}, [{shares}]) FROM {VIEW} WHERE {_there(column, rows)}"
    return dict(zip(ordered, session.remembered(query)[0], strict=True))


def distinct_values(column: Column, rows: str, session: Session) -> Any:
    """The distinct values as a pandas series of the column's type."""
    if column.kind in ("bool", "float32"):
        raise Cannot("pandas has its own way with values of this type")
    table = session.arrow(f"SELECT DISTINCT {column.sql} FROM {VIEW} WHERE {rows}")
    return session.typed(table, [column.name])[column.name]


def _distinct_set(column: Column, rows: str, _: Any, session: Session) -> Plan:
    return Plan(
        needs=_facts(column, session), finish=lambda _: set(distinct_values(column, rows, session).unique())
    )


def _value_counts(column: Column, rows: str, values: Mapping[str, Any], session: Session) -> Plan:
    if values.get("sort") not in (None, "value") or values.get("collate") is not None:
        raise Cannot("pandas has its own order of these values")
    if column.kind not in ("int", "float", "str"):
        raise Cannot("pandas has its own way with values of this type")

    def finish(_: dict[str, Any]) -> Any:
        import pandas as pd

        table = session.arrow(
            f"SELECT {column.sql}, count(*) FROM {VIEW} WHERE {_there(column, rows)} GROUP BY 1 ORDER BY 1"
        )
        if not table.num_rows:
            raise Cannot("there are no values")
        series = session.typed(table.select([0]), [column.name])[column.name]
        counts = pd.Series(table.column(1).to_numpy(), index=pd.Index(series), name="count")
        counts.index.name = "value"
        return counts.sort_index()

    return Plan(needs=_facts(column, session), finish=finish)


def _commonest(column: Column, rows: str, _: Any, session: Session) -> Plan:
    if column.kind not in ("int", "float", "str"):
        raise Cannot("pandas has its own way with values of this type")

    def finish(_: dict[str, Any]) -> Any:
        there = _there(column, rows)
        most = int(session.remembered(groups_query((column,), there))[2])
        if not most:
            raise Cannot("there are no values")
        table = session.arrow(
            f"SELECT {column.sql} FROM {VIEW} WHERE {there} GROUP BY 1 HAVING count(*) = {most} ORDER BY 1"
        )
        return list(session.typed(table, [column.name])[column.name].values)

    return Plan(needs=_facts(column, session), finish=finish)


_COMPILERS: dict[str, Callable[..., Plan]] = {
    "column.max": _end("max"),
    "column.min": _end("min"),
    "column.mean": _mean,
    "column.standard_deviation": _deviation,
    "column.sum": _sum,
    "column.non_null_count": _count,
    "column.median": _median,
    "column.quantile_values": _quantiles,
    "column.outlier_statistics": _outliers,
    "column.histogram": _histogram,
    "column.distinct_values": _distinct_set,
    "column.distinct_values.count": _distinct_count,
    "column.value_counts": _value_counts,
    "column.most_common_value": _commonest,
    "column_values.between.count": _between_count,
}
# Their own code runs over the distinct values alone, which are all that they look at.
BY_DISTINCT_VALUES = (
    "column.distinct_values.missing_from_column",
    "column.distinct_values.missing_from_column.count",
    "column.distinct_values.not_in_set",
    "column.distinct_values.not_in_set.count",
)
