"""When which partition of a table is expected: daily at six, hourly, on working days, by a cron expression.

For freshness. A period begins, ends where the next one begins, and its partition is called after its
beginning; the partition is due when the period has ended and a grace has passed::

    ArrivalSchedule(every="daily", timezone="America/New_York", grace=timedelta(hours=6))
    # 2013-02-03 (of New York) is due on 2013-02-04 at 06:00 (of New York)
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.quality._documents import load_document

__all__ = ["ArrivalSchedule", "ExpectedPartition", "load_schedule"]

CALENDAR = ("hourly", "daily", "weekly", "monthly")
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MOST = 100_000  # periods looked at: eleven years of hours

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True, kw_only=True, order=True)
class ExpectedPartition:
    """One period: its beginning and end, when its partition is due (all UTC), and the partition's name."""

    begins: datetime
    ends: datetime
    due: datetime
    partition: str


@dataclass(frozen=True, kw_only=True)
class ArrivalSchedule:
    """Which partitions a table should have, and when.

    :param every: ``hourly``, ``daily``, ``weekly`` (from Monday), ``monthly``, or a duration (a timedelta,
        ``"15m"``), counted from ``start``.
    :param cron: instead of ``every``: a period begins at each time of this cron expression. Needs croniter,
        which Airflow brings.
    :param timezone: where days begin; partition names are local too.
    :param grace: how long after the end of its period a partition may still arrive (``"6h"`` as text).
    :param start: the first period; None: that of the table's first partition.
    :param weekdays: only these days: ``["mon", "tue", ...]``; None: all.
    :param holidays: no partition is expected on these local dates.
    :param partition_format: of partition names, as ``strftime`` takes it; None: ``2013-02-03``,
        ``2013-02-03T05`` or ``2013-02``, by the length of the period.
    """

    every: str | timedelta = "daily"
    cron: str | None = None
    timezone: str = "UTC"
    grace: timedelta | str = timedelta(0)
    start: datetime | date | str | None = None
    weekdays: Sequence[str] | None = None
    holidays: Sequence[date | str] = ()
    partition_format: str | None = None

    def __post_init__(self) -> None:
        """
        :raises ArgumentError: ``argument.schedule``: a field does not say a schedule.
        """
        _zone(self.timezone)
        _duration(self.grace, "grace")
        if self.cron is not None:
            _check_cron(self.cron)
        elif self.every not in CALENDAR and _duration(self.every, "every") <= timedelta(0):
            raise _unusable(f"every is {self.every}")
        if self.weekdays is not None and (
            not self.weekdays or not {str(one).lower()[:3] for one in self.weekdays} <= set(WEEKDAYS)
        ):
            raise _unusable(f"weekdays are {list(self.weekdays)}")
        for day in self.holidays:
            _date(day, "a holiday")
        if self.start is not None:
            self._moment(self.start)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ArrivalSchedule:
        """The schedule that :meth:`to_json` gave, or a person wrote as YAML.

        :raises ArgumentError: ``argument.schedule``.
        """
        try:
            return cls(**{str(name): value for name, value in data.items() if value is not None})
        except TypeError as error:
            raise _unusable(str(error).rpartition("__init__() ")[2]) from None

    def to_json(self) -> dict[str, Any]:
        """The schedule as plain JSON types."""
        start = self.start.isoformat() if isinstance(self.start, date) else self.start
        return {
            "every": f"{self.every.total_seconds():g}s" if isinstance(self.every, timedelta) else self.every,
            "cron": self.cron,
            "timezone": self.timezone,
            "grace": f"{_duration(self.grace, 'grace').total_seconds():g}s",
            "start": start,
            "weekdays": None if self.weekdays is None else list(self.weekdays),
            "holidays": [str(day) for day in self.holidays],
            "partition_format": self.partition_format,
        }

    def expected(self, *, since: datetime | None, as_of: datetime) -> list[ExpectedPartition]:
        """The partitions whose periods have ended by ``as_of``, oldest first; some may not be due yet.

        :param since: where to begin if the schedule has no start; nothing is expected if both are None.
        :raises ArgumentError: ``argument.schedule``: the start is so long ago that it must be a mistake.
        """
        first = self._moment(self.start) if self.start is not None else since
        if first is None:
            return []
        zone, grace = _zone(self.timezone), _duration(self.grace, "grace")
        free = {_date(day, "a holiday") for day in self.holidays}
        days = {WEEKDAYS.index(str(one).lower()[:3]) for one in self.weekdays} if self.weekdays else None
        name = self._namer(first)
        found: dict[str, ExpectedPartition] = {}
        for number, (begins, ends) in enumerate(itertools.pairwise(self._beginnings(first))):
            if ends > as_of:
                break
            if number == MOST:
                raise _unusable(f"more than {MOST} periods lie between its start and now")
            local = begins.astimezone(zone)
            if local.date() in free or (days is not None and local.weekday() not in days):
                continue
            # Where clocks go back, two hours have one name: the later one says when it is complete.
            one = ExpectedPartition(begins=begins, ends=ends, due=ends + grace, partition=name(local))
            found[one.partition] = one
        return sorted(found.values())

    def period_of(self, partition: str, begins: datetime) -> ExpectedPartition:
        """The period of a partition that begins then, whatever weekday it is."""
        beginnings = self._beginnings(begins)
        first, second = next(beginnings), next(beginnings)
        return ExpectedPartition(
            begins=first, ends=second, due=second + _duration(self.grace, "grace"), partition=partition
        )

    def _moment(self, given: datetime | date | str) -> datetime:
        if isinstance(given, str):
            try:
                given = datetime.fromisoformat(given.strip())
            except ValueError:
                raise _unusable(f"start is {given!r}") from None
        if not isinstance(given, datetime):
            given = datetime(given.year, given.month, given.day)  # noqa: DTZ001 - gets its zone below
        return (given if given.tzinfo else given.replace(tzinfo=_zone(self.timezone))).astimezone(UTC)

    def _beginnings(self, first: datetime) -> Iterator[datetime]:
        """Where periods begin, UTC: from the one ``first`` lies in; by cron or duration, not before it."""
        zone = _zone(self.timezone)
        local = first.astimezone(zone)
        if self.cron is not None:
            yield from _cron_times(self.cron, local)
            return
        if self.every not in CALENDAR:
            step = _duration(self.every, "every")
            yield from (first + number * step for number in itertools.count())
            return
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
        if self.every == "hourly":
            # The hour of the zone: in Kolkata it begins at half past of UTC.
            hour = local.replace(minute=0, second=0, microsecond=0).astimezone(UTC)
            yield from (hour + timedelta(hours=number) for number in itertools.count())
        elif self.every == "monthly":
            for number in itertools.count(midnight.year * 12 + midnight.month - 1):
                yield midnight.replace(year=number // 12, month=number % 12 + 1, day=1).astimezone(UTC)
        else:
            days = 7 if self.every == "weekly" else 1
            begin = midnight - timedelta(days=midnight.weekday() if days == 7 else 0)
            # Wall-clock arithmetic: a local day has 23 or 25 hours where clocks change.
            yield from ((begin + timedelta(days=days * n)).astimezone(UTC) for n in itertools.count())

    def _namer(self, first: datetime) -> Callable[[datetime], str]:
        pattern = self.partition_format
        if pattern is None and self.cron is None and self.every == "monthly":
            pattern = "%Y-%m"
        if pattern is None:
            begins, ends = itertools.islice(self._beginnings(first), 2)
            length = ends - begins
            pattern = (
                "%Y-%m-%d"
                if length >= timedelta(hours=23)
                else "%Y-%m-%dT%H"
                if length >= timedelta(hours=1)
                else "%Y-%m-%dT%H:%M"
            )
        return lambda moment: moment.strftime(pattern)


def load_schedule(given: Any) -> ArrivalSchedule | None:
    """A schedule from its object, its JSON, a word (``daily``), a cron expression, a ``.yaml`` or ``.json``
    file, or ``package.module:function``; None for None.

    :raises ArgumentError: it is none of these; :raises UserCodeError: there is no such function.
    """
    if isinstance(given, str):
        text = given.strip()
        if text in CALENDAR or _DURATION.fullmatch(text):
            return ArrivalSchedule(every=text)
        if len(text.split()) >= 5:
            return ArrivalSchedule(cron=text)
    if isinstance(given, timedelta):
        return ArrivalSchedule(every=given)
    found = load_document(given, what="arrival schedule") if given is not None else None
    if found is None or isinstance(found, ArrivalSchedule):
        return found
    if not isinstance(found, Mapping):
        raise _unusable(f"it is a {type(found).__name__}")
    return ArrivalSchedule.from_json(found)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise _unusable(f"there is no time zone {name!r}") from None


def _duration(given: timedelta | str, field: str) -> timedelta:
    if isinstance(given, timedelta):
        return given
    found = _DURATION.fullmatch(str(given).strip())
    if found is None:
        raise _unusable(f"{field} is {given!r}")
    return timedelta(seconds=float(found[1]) * _SECONDS[found[2]])


def _date(given: date | str, what: str) -> date:
    if isinstance(given, date):
        return given
    try:
        return date.fromisoformat(str(given).strip())
    except ValueError:
        raise _unusable(f"{what} is {given!r}") from None


def _cron_times(expression: str, first: datetime) -> Iterator[datetime]:
    # Not before ``first``: the period of a partition called after a day begins at that day's time.
    times = _croniter()(expression, first - timedelta(microseconds=1))
    while True:
        yield times.get_next(datetime).astimezone(UTC)


def _check_cron(expression: str) -> None:
    if not _croniter().is_valid(expression):
        raise _unusable(f"{expression!r} is no cron expression")


def _croniter() -> Any:
    try:
        from croniter import croniter  # type: ignore[import-untyped]
    except ImportError:
        raise ArgumentError(
            "a schedule by cron expression cannot be used here", code="argument.croniter_missing",
            why="the package croniter is not installed; where Airflow is, it is",
            todo="pip install croniter, or use every='daily'",
        ) from None  # fmt: skip
    return croniter


def _unusable(why: str) -> ArgumentError:
    return ArgumentError(
        "the arrival schedule cannot be used", code="argument.schedule", why=why,
        todo=f"give every ({', '.join(CALENDAR)}, or a duration such as 15m) or cron, a timezone and a grace"
        " such as 6h",
    )  # fmt: skip
