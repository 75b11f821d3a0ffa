"""Series for the tests of control charts: one point a day."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from airflow_provider_xops.quality.spc import Point

FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def day(number: int) -> datetime:
    """The time of the ``number``-th point (from 0)."""
    return FIRST + timedelta(days=number)


def points_of(values: Iterable[float | None], sizes: Sequence[float] | None = None) -> list[Point]:
    """Daily points labeled with their number, from 1 on, as the books count."""
    return [
        Point(label=str(at + 1), time=day(at), value=value, size=sizes[at] if sizes else None)
        for at, value in enumerate(values)
    ]
