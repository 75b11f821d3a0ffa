"""One table in a database and in memory, and the checks that both must answer alike."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Any

import pandas as pd
import sqlalchemy as sa

from airflow_provider_xops.quality.suites import Check
from airflow_provider_xops.records import Severity

SECRET = "Jane Secretdottir"

ROWS: dict[str, list[Any]] = {
    "Order Id": [1, 2, 3, 4, 5],
    "n": [1.5, 2.5, -3.0, None, 7.0],
    "name": ["a", "bb", SECRET, None, "a"],
    "day": [date(2013, 1, day) for day in range(1, 6)],
    "at": [datetime(2013, 1, day, 12) for day in range(1, 6)],  # noqa: DTZ001
}


def create(engine: sa.Engine, name: str = "orders", schema: str | None = None, copies: int = 1) -> None:
    """The table in the database."""
    table = sa.Table(
        name,
        sa.MetaData(),
        sa.Column("Order Id", sa.Integer),
        sa.Column("n", sa.Float),
        sa.Column("name", sa.String(80)),
        sa.Column("day", sa.Date),
        sa.Column("at", sa.DateTime),
        schema=schema,
    )
    rows = [dict(zip(ROWS, values, strict=True)) for values in zip(*ROWS.values(), strict=True)]
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert(), rows * copies)


def frame() -> pd.DataFrame:
    """The same rows in memory."""
    return pd.DataFrame(ROWS)


def _check(kind: str, **kwargs: Any) -> Check:
    return Check(type=f"expect_{kind}", kwargs=kwargs, severity=Severity.WARNING)


# What Great Expectations supports on both engines with one meaning. Left out: comparisons between columns of
# which one is missing (a database knows no answer, pandas says no) and names of types (each has its own).
CHECKS = [
    _check("table_row_count_to_be_between", min_value=1, max_value=4),
    _check("table_column_count_to_equal", value=5),
    _check("table_columns_to_match_set", column_set=["Order Id", "n", "name", "day", "at"]),
    _check("column_to_exist", column="n"),
    _check("column_values_to_not_be_null", column="n", mostly=0.5),
    _check("column_values_to_be_null", column="n"),
    _check("column_values_to_be_unique", column="Order Id"),
    _check("column_values_to_be_unique", column="name"),
    _check("column_values_to_be_between", column="n", min_value=0),
    _check("column_values_to_be_between", column="n", min_value=1.5, strict_min=True),
    _check("column_values_to_be_between", column="day", max_value="2013-01-03"),
    _check("column_values_to_be_between", column="at", max_value="2013-01-03T00:00:00"),
    _check("column_values_to_be_in_set", column="name", value_set=["a", "bb"]),
    _check("column_values_to_not_be_in_set", column="name", value_set=["a"]),
    _check("column_values_to_match_regex", column="name", regex="^[ab]+$"),
    _check("column_values_to_not_match_regex", column="name", regex="^[ab]+$"),
    _check("column_value_lengths_to_be_between", column="name", max_value=2),
    _check("column_value_z_scores_to_be_less_than", column="n", threshold=1, double_sided=True),
    _check("column_min_to_be_between", column="n", min_value=0),
    _check("column_max_to_be_between", column="day", max_value="2013-01-03"),
    _check("column_mean_to_be_between", column="n", max_value=1),
    _check("column_median_to_be_between", column="n", max_value=1),
    _check("column_stdev_to_be_between", column="n", max_value=1),
    _check("column_sum_to_be_between", column="n", max_value=8),
    _check("column_unique_value_count_to_be_between", column="name", max_value=2),
    _check("column_proportion_of_unique_values_to_be_between", column="name", max_value=0.1),
    _check("column_distinct_values_to_be_in_set", column="name", value_set=["a"]),
    _check("column_most_common_value_to_be_in_set", column="name", value_set=["a"]),
    _check(
        "column_quantile_values_to_be_between",
        column="n",
        quantile_ranges={"quantiles": [0.5], "value_ranges": [[0, 1]]},
    ),
    _check("compound_columns_to_be_unique", column_list=["Order Id", "name"]),
    _check("column_values_to_not_be_null", column="gate"),
    _check("column_values_to_be_between", column="at", max_value="soon"),
]


class Statements:
    """Every statement that an engine sends."""

    def __init__(self, engine: sa.Engine) -> None:
        self.sent: list[str] = []
        sa.event.listen(engine, "before_cursor_execute", self._hear)

    def _hear(self, connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        # the drivers' ways to write a parameter as one
        self.sent.append(re.sub(r"%\(\w+\)s", "?", " ".join(statement.split())))

    def reading_rows(self, table: str) -> list[str]:
        """Statements that could bring rows of the table out, however many there are."""
        of_table = [one for one in self.sent if re.search(rf"FROM \W*(\w+\W+)?{table}\b", one)]
        return [one for one in of_table if not _is_bounded(one)]


def _is_bounded(statement: str) -> bool:
    """Whether it ends in a bound, groups, or selects nothing but aggregates at its outermost level."""
    if re.search(r"\bLIMIT\b [^()]*$", statement):
        return True
    outermost = re.sub(r"\([^()]*\)", "", statement)
    while outermost != (shorter := re.sub(r"\([^()]*\)", "", outermost)):
        outermost = shorter
    if " GROUP BY " in outermost:
        return True
    selected = outermost.partition(" FROM ")[0].removeprefix("SELECT ")
    aggregates = re.compile(r"^(count|sum|avg|min|max|sqrt|stddev_samp|percentile_disc WITHIN GROUP)\b")
    return all(aggregates.match(one.strip()) or "unexpected_count" in one for one in selected.split(","))
