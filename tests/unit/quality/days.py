"""Tables of days, and plans, for the tests of metrics, charts and freshness."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.records import DatasetRef
from tests.unit.lake.helpers import AS_OF, put, segment, user

FIRST = date(2013, 1, 1)


def day(number: int) -> str:
    """The name of the ``number``-th day, counted from 0."""
    return str(FIRST + timedelta(days=number))


def wave(number: int) -> float:
    """What varies from day to day as ordinary days do: seven values around zero."""
    return (0.0, 1.0, -1.0, 0.5, -0.5, 0.8, -0.8)[number * 3 % 7]


def rows(value: float, *, count: int = 4) -> pa.Table:
    """``count`` rows whose ``distance`` has the mean ``value``."""
    spread = [value - 10 if number % 2 else value + 10 for number in range(count)]
    return pa.table({"distance": spread, "tail": [f"N{number % 2}" for number in range(count)]})


def load(
    lake: Lake, values: Iterable[tuple[str, float]], *, table: str = "t__raw", **options: Any
) -> DatasetRef:
    """Commit one partition a day whose ``distance`` has that mean; gives the version."""
    segments = [segment(name, f"{name}:{value}", rows(value)) for name, value in values]
    options.setdefault("actor", user(next(_fences)))
    put(lake, table, *segments, **options)
    return head(lake, table)


def shifted(days: int, *, since: int, by: float) -> list[tuple[str, float]]:
    """Ordinary days around 1,000, and ``by`` more from the day ``since`` on."""
    return [(day(n), 1000 + 10 * wave(n) + (by if n >= since else 0.0)) for n in range(days)]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _count() -> Iterable[int]:
    number = 1
    while True:
        yield number
        number += 1


_fences = iter(_count())

__all__ = ["AS_OF", "FIRST", "day", "load", "rows", "shifted", "utc", "wave"]


def mean_chart() -> dict[str, Any]:
    """A chart with all of Nelson's rules, its limits frozen in January's first thirty days."""
    return {
        "metric": "mean:distance",
        "rules": ["nelson_1", "nelson_2"],
        "baseline": {"kind": "frozen", "start": day(0), "end": day(24)},
    }
