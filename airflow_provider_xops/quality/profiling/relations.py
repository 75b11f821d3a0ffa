"""What holds between the columns of a table: candidate keys, duplicate rows, correlations, time coverage.

For profiles.

* Keys: a single column whose values are all there and all different; where there is none, pairs. A pair with
  a duplicate in the sample is no key; the others are proved or refused on all rows, the :data:`MOST_PAIRS`
  with the most possible combinations. Columns of floats are not looked at. Larger keys are not searched.
* Duplicate rows: none where there is a key; else by a 64-bit hash of each row, which takes two different rows
  for one with a chance below rows squared / 2^65.
* Pearson's correlation over the rows that have both values, exact, from sums of products about a shift (the
  shifted-data algorithm: Chan, Golub, LeVeque 1983). Spearman's on ranks of the sample: exact where the
  sample is the table, else with a standard error of about 1 / sqrt(rows of the sample).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.quality.profiling._columns import Column, Kind, Session
from airflow_provider_xops.quality.profiling.figures import iso

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["correlations", "duplicate_rows", "keys", "time_coverage"]

MOST_PAIRS = 20
MOST_CORRELATED = 40  # columns
BATCH_ROWS = 65_536
MICROSECONDS = {"hour": 3_600_000_000, "day": 86_400_000_000, "week": 604_800_000_000}
MOST_BUCKETS = 1_500
SHOWN_GAPS = 20

_KEY_KINDS = (Kind.TEXT, Kind.DATE, Kind.TIMESTAMP, Kind.BOOLEAN)


def keys(
    session: Session, figures: Sequence[Mapping[str, Any]], sample: pd.DataFrame, *, rows: int
) -> list[list[str]]:
    """The candidate keys: columns that identify a row, alone or in pairs; none of fewer than two rows."""
    if rows < 2:
        return []
    complete = [
        column
        for column in session.columns
        if (column.is_whole or column.kind in _KEY_KINDS) and figures[column.position]["count"] == rows
    ]
    single = [column for column in complete if _is_unique(session, column, figures[column.position], rows)]
    if single:
        return [[column.name] for column in single]

    def distinct(column: Column) -> int:
        return int(figures[column.position]["distinct"]["value"])

    pairs = [
        (distinct(one) * distinct(other), one, other)
        for one, other in combinations(complete, 2)
        # A sketch may be short of the truth by 10 %.
        if distinct(one) * distinct(other) * 1.21 >= rows and not sample.duplicated([one.c, other.c]).any()
    ]
    pairs.sort(key=lambda pair: -pair[0])
    return [
        [one.name, other.name]
        for _, one, other in pairs[:MOST_PAIRS]
        if not session.rows(f"SELECT 1 FROM {{rows}} GROUP BY {one.c}, {other.c} HAVING count(*) > 1 LIMIT 1")
    ]


def _is_unique(session: Session, column: Column, found: Mapping[str, Any], rows: int) -> bool:
    distinct = found["distinct"]
    if distinct["exact"]:
        return bool(distinct["value"] == rows)
    if distinct["value"] < 0.85 * rows:  # five standard errors of the sketch
        return False
    return bool(session.row([f"count(DISTINCT {column.c})"])[0] == rows)


def duplicate_rows(session: Session, found_keys: Sequence[Sequence[str]], *, rows: int) -> dict[str, Any]:
    """How many rows are there again, and how that is known."""
    if found_keys:
        return {"value": 0, "method": "a key was proved"}
    if rows < 2 or not session.columns:
        return {"value": 0, "method": "fewer than two rows"}
    hashed = ", ".join(column.r for column in session.columns)
    return {
        "value": rows - int(session.row([f"count(DISTINCT hash({hashed}))"])[0]),
        "method": f"64-bit hash of each row, chance of an error below {rows**2 / 2.0**65:.1g}",
    }


def correlations(
    session: Session, figures: Sequence[Mapping[str, Any]], sample: pd.DataFrame, *, rows: int
) -> dict[str, Any] | None:
    """Pearson's and Spearman's coefficients of the columns of numbers that vary; None of fewer than two."""
    varying = [
        column
        for column in session.columns
        if column.kind is Kind.NUMBER and figures[column.position]["distinct"]["value"] > 1
    ]
    chosen = varying[:MOST_CORRELATED]
    if len(chosen) < 2:
        return None
    ranked = sample[[column.c for column in chosen]].astype("float64")
    spearman = ranked.corr(method="spearman", min_periods=3).to_numpy()
    return {
        "columns": [column.name for column in chosen],
        "left_out": len(varying) - len(chosen),
        "pearson": _matrix(_pearson(session, chosen, figures)),
        "spearman": _matrix(spearman),
        "spearman_exact": len(sample) == rows,
        "spearman_rows": len(sample),
    }


def _pearson(session: Session, columns: Sequence[Column], figures: Sequence[Mapping[str, Any]]) -> Any:
    import numpy as np

    # About the mean, in units of the standard deviation: no sum overflows, no digit is lost to the offset.
    shift = np.array([figures[column.position]["mean"] or 0.0 for column in columns])
    scale = np.array([figures[column.position]["sd"] or 1.0 for column in columns])
    sums = {name: np.zeros((len(columns), len(columns))) for name in ("n", "x", "xx", "xy")}
    wanted = session.connection.sql(
        session.sql(f"SELECT {', '.join(f'{column.c}::DOUBLE' for column in columns)} FROM {{rows}}")
    )
    for batch in wanted.to_arrow_reader(BATCH_ROWS):
        values = np.column_stack(
            [batch.column(i).to_numpy(zero_copy_only=False) for i in range(len(columns))]
        )
        with np.errstate(all="ignore"):
            values = (values.astype("float64", copy=False) - shift) / scale
            there = np.isfinite(values)
            values[~there] = 0.0
            present = there.astype("float64")
            sums["n"] += present.T @ present
            sums["x"] += values.T @ present
            sums["xx"] += (values**2).T @ present
            sums["xy"] += values.T @ values
    n, x, xx, xy = (sums[name] for name in ("n", "x", "xx", "xy"))
    with np.errstate(all="ignore"):
        covariance = xy - x * x.T / n
        variance = xx - x**2 / n
        # What is left of a constant is rounding.
        variance[variance <= 1e-12 * xx] = np.nan
        found = covariance / np.sqrt(variance * variance.T)
    found[n < 3] = np.nan
    return np.clip(found, -1.0, 1.0)


def _matrix(values: Any) -> list[list[float | None]]:
    return [
        [
            None if not math.isfinite(value) else 1.0 if i == j else round(float(value), 9)
            for j, value in enumerate(row)
        ]
        for i, row in enumerate(values)
    ]


def time_coverage(
    session: Session, figures: Sequence[Mapping[str, Any]], column_name: str | None
) -> dict[str, Any] | None:
    """Rows by hour, day or week (UTC) of the time column, and the stretches without any.

    :param column_name: None: of the columns of times the one with the fewest missing values.
    """
    column = _time_column(session, figures, column_name)
    if column is None or not figures[column.position]["count"]:
        return None
    found = figures[column.position]
    (first, last), *_ = session.rows(f"SELECT min({column.c}), max({column.c}) FROM {{rows}}")
    unit = _unit(column, last - first)
    width = MICROSECONDS[unit]
    counted = session.rows(
        # Whole numbers all the way: a float of microseconds is rounded in far centuries.
        f"SELECT ({column.c} - ({column.c} % {width} + {width}) % {width}) // {width} AS bucket, count(*) "
        f"FROM {{rows}} WHERE {column.c} IS NOT NULL GROUP BY 1 ORDER BY 1 LIMIT {MOST_BUCKETS + 1}"
    )
    gaps = [(before + 1, after - 1) for (before, _), (after, _) in pairwise(counted) if after - before > 1]
    longest = sorted(gaps, key=lambda gap: (gap[0] - gap[1], gap[0]))

    def text(bucket: int) -> str | None:
        return iso(bucket * width, date=unit != "hour")

    whole = len(counted) <= MOST_BUCKETS
    return {
        "column": column.name,
        "declared": column_name is not None,
        "start": found["min"],
        "end": found["max"],
        "unit": unit,
        "buckets": [[text(bucket), n] for bucket, n in counted[:MOST_BUCKETS]],
        "whole": whole,
        "empty_buckets": sum(after - before + 1 for before, after in gaps) if whole else None,
        "gaps": [
            {"from": text(before), "to": text(after), "length": after - before + 1}
            for before, after in longest[:SHOWN_GAPS]
        ],
    }


def _time_column(session: Session, figures: Sequence[Mapping[str, Any]], name: str | None) -> Column | None:
    times = [column for column in session.columns if column.is_time and (name is None or column.name == name)]
    # A column of moments tells more than one of dates.
    times.sort(key=lambda column: (figures[column.position]["nulls"], column.kind is Kind.DATE))
    return times[0] if times else None


def _unit(column: Column, span: int) -> str:
    if column.kind is Kind.TIMESTAMP and span <= 31 * MICROSECONDS["day"]:
        return "hour"
    return "day" if span <= MOST_BUCKETS * MICROSECONDS["day"] else "week"
