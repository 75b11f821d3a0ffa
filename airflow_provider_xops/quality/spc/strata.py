"""Strata: a Sunday is compared with Sundays, four in the morning with four in the morning.

Each stratum has its own center and sigma; moving ranges go from one Sunday to the next. The run rules, EWMA
and CUSUM then read the standardized residuals of *all* points in the order of time: after each point is
measured against its own stratum, residuals of different strata are comparable, and a shift that begins on a
Tuesday is seen within days. Within single strata, nine points in a row would take nine weeks.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

__all__ = ["stratum_names"]

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def stratum_names(
    strata: str | None, timezone: str, times: Sequence[datetime], floating: Sequence[bool] | None = None
) -> list[str | None]:
    """The stratum of each time, in the words that charts show; None where there are no strata.

    :param floating: which times are a calendar's own and in no zone; None: none of them.

    >>> stratum_names("weekday_hour", "Europe/Berlin", [datetime(2026, 1, 5, 23, tzinfo=UTC)])
    ['Tuesday 00h']
    """
    if strata is None:
        return [None] * len(times)
    zone = ZoneInfo(timezone)
    as_they_stand = [False] * len(times) if floating is None else floating
    return [
        _name(strata, time.astimezone(UTC if floats else zone))
        for time, floats in zip(times, as_they_stand, strict=True)
    ]


def _name(strata: str, local: datetime) -> str:
    day, hour = _DAYS[local.weekday()], f"{local.hour:02d}h"
    return {"weekday": day, "hour": hour, "weekday_hour": f"{day} {hour}"}[strata]
