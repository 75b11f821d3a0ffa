"""The time that a partition stands for, from its name.

For metrics, charts and freshness: a partition is usually the local business date (or hour) as an ISO string.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo

__all__ = ["names_a_zone", "partition_time"]

_MONTH = re.compile(r"\d{4}-\d{2}")
# 2013-01-31-05 and 2013-01-31_05: hours as folders are often called.
_HOUR = re.compile(r"(\d{4}-\d{2}-\d{2})[-_ ](\d{2})")


def partition_time(partition: str, *, zone: tzinfo = UTC) -> datetime | None:
    """When the date, hour or month that a partition is called after begins, UTC; None for another name.

    :param zone: of a name that names none.

    >>> partition_time("2013-02-03").isoformat(), partition_time("2013-02-03-05").isoformat()
    ('2013-02-03T00:00:00+00:00', '2013-02-03T05:00:00+00:00')
    >>> partition_time("2013-02").day, partition_time("eu-west")
    (1, None)
    """
    moment = _parsed(partition)
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)


def names_a_zone(partition: str) -> bool:
    """Whether the name says in which zone its date or hour is; most are local dates and do not.

    >>> names_a_zone("2013-02-03"), names_a_zone("2013-02-03T05Z")
    (False, True)
    """
    moment = _parsed(partition)
    return moment is not None and moment.tzinfo is not None


def _parsed(partition: str) -> datetime | None:
    text = partition.strip()
    if _MONTH.fullmatch(text):
        text += "-01"
    elif found := _HOUR.fullmatch(text):
        text = f"{found[1]}T{found[2]}"
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
