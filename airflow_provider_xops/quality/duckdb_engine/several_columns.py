"""Conditions over a pair of columns or several, as SQL.

For the compiler of row-level conditions. Each function gives the test that a row passes, with pandas' meaning
of it, or raises :class:`Cannot` and the library computes it on pandas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from airflow_provider_xops.quality.duckdb_engine.columns import Cannot, Column, literal
from airflow_provider_xops.quality.duckdb_engine.session import Session

__all__ = ["SEVERAL"]

_NUMBERS = ("int", "float")


def _alike(columns: tuple[Column, ...]) -> None:
    kinds = {column.kind for column in columns}
    if not (len(kinds) == 1 or kinds <= set(_NUMBERS)) or "bool" in kinds:
        raise Cannot("the columns are of several types")
    if "decimal" in kinds and len({column.type for column in columns}) > 1:
        raise Cannot("the decimals are of several scales")


def _pair_equal(columns: tuple[Column, ...], *_: Any) -> str:
    _alike(columns)
    return f"coalesce({columns[0].sql} = {columns[1].sql}, FALSE)"


def _pair_greater(
    columns: tuple[Column, ...], values: Mapping[str, Any], ignored: str, session: Session
) -> str:
    _alike(columns)
    objects = any(session.dtype(column.name) == np.dtype(object) for column in columns)
    if objects and ignored != "either_value_is_missing":
        raise Cannot("pandas cannot compare a missing value of this type")
    operator = ">=" if values.get("or_equal") else ">"
    return f"coalesce({columns[0].sql} {operator} {columns[1].sql}, FALSE)"


def _pair_in_set(columns: tuple[Column, ...], values: Mapping[str, Any], *_: Any) -> str:
    pairs = values.get("value_pairs_set")
    if pairs is None:
        return "TRUE"
    if any(column.kind not in ("int", "float", "str") for column in columns):
        raise Cannot("pandas has its own way to look a pair of this type up in a set")
    tests = []
    for pair in pairs:
        sides = [
            f"{column.sql} IS NULL"
            if value is None
            else f"coalesce({column.sql} = {literal(value, column)}, FALSE)"
            for column, value in zip(columns, pair, strict=True)
        ]
        tests.append(f"({' AND '.join(sides)})")
    return f"({' OR '.join(tests)})" if tests else "FALSE"


def _sum_equal(columns: tuple[Column, ...], values: Mapping[str, Any], *_: Any) -> str:
    total = values.get("sum_total")
    if any(column.kind not in _NUMBERS for column in columns) or len(columns) > 7:
        raise Cannot("pandas adds these columns in its own order")
    if isinstance(total, bool) or not isinstance(total, int | float):
        raise Cannot("the total is not a number")
    if any(column.kind == "float" for column in columns) or isinstance(total, float):
        kind = "DOUBLE"
        text = literal(total, columns[0]) if isinstance(total, float) else f"CAST({total} AS DOUBLE)"
    else:
        kind, text = "HUGEINT", str(total)
    added = " + ".join(f"CAST({column.sql} AS {kind})" for column in columns)
    return f"coalesce(({added}) = {text}, FALSE)"


def _all_equal(columns: tuple[Column, ...], *_: Any) -> str:
    _alike(columns)
    first = columns[0].sql
    return "(" + " AND ".join(f"({first} IS NOT DISTINCT FROM {one.sql})" for one in columns[1:]) + ")"


def _all_distinct(columns: tuple[Column, ...], *_: Any) -> str:
    _alike(columns)
    pairs = [
        f"({one.sql} IS DISTINCT FROM {other.sql})"
        for place, one in enumerate(columns)
        for other in columns[place + 1 :]
    ]
    return f"({' AND '.join(pairs)})"


SEVERAL: dict[str, Callable[..., str]] = {
    "column_pair_values.equal": _pair_equal,
    "column_pair_values.a_greater_than_b": _pair_greater,
    "column_pair_values.in_set": _pair_in_set,
    "multicolumn_sum.equal": _sum_equal,
    "multicolumn_values.equal": _all_equal,
    "select_column_values.unique.within_record": _all_distinct,
}
