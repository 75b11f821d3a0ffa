"""What a sensor waits for, and one look at whether it is there.

For the freshness sensor and its trigger, which look every minute: so one look opens the table's head and
reads no evidence. A partition that was dropped is not there any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

from airflow_provider_xops.errors import ArgumentError, DataError, NotFoundError
from airflow_provider_xops.quality.arrival_schedule import ArrivalSchedule, ExpectedPartition

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.records import Actor, Incident

__all__ = ["Look", "Wait", "late_error", "look", "open_late_incidents"]

_LOOK_BACK = 20


@dataclass(frozen=True, kw_only=True)
class Wait:
    """What is waited for: partitions, the newest one of a schedule, or anything that is new enough.

    :param partitions: until all of these are there.
    :param schedule: without ``partitions``: until the newest one is there whose period had ended when the
        wait began; with them: it says when they are due.
    :param max_age: until the newest commit is at most so old.
    :param since: when the wait began (UTC).
    """

    table: str
    partitions: tuple[str, ...] | None = None
    schedule: ArrivalSchedule | None = None
    max_age: timedelta | None = None
    since: datetime

    def __post_init__(self) -> None:
        """
        :raises ArgumentError: ``argument.wait``: nothing is waited for, or a partition has no due time.
        """
        if self.partitions is None and self.schedule is None and self.max_age is None:
            raise ArgumentError(
                f"nothing of {self.table} is waited for", code="argument.wait",
                todo="give partition, schedule or max_age",
            )  # fmt: skip
        if self.partitions is not None and self.schedule is not None:
            for name in self.partitions:
                _time_of(name, self.schedule)

    def to_json(self) -> dict[str, Any]:
        """The wait as plain JSON types."""
        return {
            "table": self.table,
            "partitions": None if self.partitions is None else list(self.partitions),
            "schedule": None if self.schedule is None else self.schedule.to_json(),
            "max_age": None if self.max_age is None else self.max_age.total_seconds(),
            "since": self.since.isoformat(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Wait:
        """The wait that :meth:`to_json` gave."""
        return cls(
            table=data["table"],
            partitions=None if data["partitions"] is None else tuple(data["partitions"]),
            schedule=None if data["schedule"] is None else ArrivalSchedule.from_json(data["schedule"]),
            max_age=None if data["max_age"] is None else timedelta(seconds=data["max_age"]),
            since=datetime.fromisoformat(data["since"]),
        )


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one look found.

    :param status: ``fresh``: it is there; ``waiting``; ``late``: it is not there and was due.
    :param missing: the partitions that are not there; ``due_at`` when the first of them is due.
    :param age_seconds: of the newest commit; None for a table that does not exist.
    """

    status: Literal["fresh", "waiting", "late"]
    table: str
    version: int | None
    partitions: tuple[str, ...]
    missing: tuple[str, ...]
    due_at: datetime | None
    age_seconds: float | None

    def to_json(self) -> dict[str, Any]:
        """The look as plain JSON types."""
        return {
            "status": self.status,
            "table": self.table,
            "version": self.version,
            "partitions": list(self.partitions),
            "missing": list(self.missing),
            "due_at": None if self.due_at is None else self.due_at.isoformat(),
            "age_seconds": self.age_seconds,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Look:
        """The look that :meth:`to_json` gave."""
        return cls(
            status=data["status"],
            table=data["table"],
            version=data["version"],
            partitions=tuple(data["partitions"]),
            missing=tuple(data["missing"]),
            due_at=None if data["due_at"] is None else datetime.fromisoformat(data["due_at"]),
            age_seconds=data["age_seconds"],
        )

    def __str__(self) -> str:
        name = (
            f"{self.table}@{self.version}" if self.version is not None else f"there is no table {self.table}"
        )
        what = f"{', '.join(self.missing[:5])} not there" if self.missing else "nothing missing"
        more = f" and {len(self.missing) - 5} more" if len(self.missing) > 5 else ""
        due = f" (due at {self.due_at.isoformat()})" if self.missing and self.due_at is not None else ""
        age = ""
        if self.age_seconds is not None:
            age = f", newest commit {timedelta(seconds=int(self.age_seconds))} ago"
        return f"{name}: {what}{more}{due}{age}"


def look(lake: Lake, wait: Wait, *, as_of: datetime) -> Look:
    """Look once.

    :raises UnavailableError: the storage did not answer: look again.
    :raises LakeError: the table cannot be read.
    """
    version, present, age = _state(lake, wait.table, as_of)
    expected = _expected(wait, present)
    missing = tuple(name for name in expected if name not in present)
    due_at = min((one.due for name in missing if (one := expected[name]) is not None), default=None)
    # With max_age alone nothing in particular is due, so it can only be waited for.
    young = wait.max_age is None or (age is not None and age <= wait.max_age.total_seconds())
    status: Literal["fresh", "waiting", "late"] = "waiting"
    if version is not None and not missing and young:
        status = "fresh"
    elif due_at is not None and as_of > due_at:
        status = "late"
    return Look(
        status=status,
        table=wait.table,
        version=version,
        partitions=tuple(expected),
        missing=missing,
        due_at=due_at,
        age_seconds=age,
    )


def open_late_incidents(lake: Lake, found: Look, *, actor: Actor, as_of: datetime) -> list[Incident]:
    """Record one incident a partition that was due and is not there; gives those that are new."""
    from airflow_provider_xops.quality.freshness import open_missing_incidents

    due = found.due_at or as_of
    return open_missing_incidents(
        lake, found.table, dict.fromkeys(found.missing, due), actor=actor, as_of=as_of
    )


def late_error(found: Look) -> DataError:
    """The error for what was due and is not there (``data.late``)."""
    return DataError(
        f"{found.table} is late", code="data.late", why=str(found),
        todo="see whether the source delivered, then load the partition and clear this task",
        context=found.to_json(),
    )  # fmt: skip


def _state(lake: Lake, table: str, as_of: datetime) -> tuple[int | None, frozenset[str], float | None]:
    from airflow_provider_xops.lake.history import read_commit
    from airflow_provider_xops.lake.read import WHOLE
    from airflow_provider_xops.lake.tables import open_table, segments_of, table_info

    try:
        handle = open_table(lake, table)
    except NotFoundError as error:
        if error.code != "not_found.table":
            raise
        return None, frozenset(), None
    version = handle.version()
    if table_info(handle) is None:  # adopted: only Delta's own time of the commit is known
        stamp = handle.history(1)[0].get("timestamp")
        return version, frozenset([WHOLE]), None if stamp is None else as_of.timestamp() - stamp / 1000
    age = None
    # A vacuum, or a property set with another tool, is a commit without data: the one before says the age.
    for number in range(version, max(-1, version - _LOOK_BACK), -1):
        recorded = (read_commit(lake, table, number) or {}).get("recorded_at")
        if recorded is not None:
            age = (as_of - datetime.fromisoformat(str(recorded))).total_seconds()
            break
    return version, frozenset(one.partition for one in segments_of(handle)), age


def _expected(wait: Wait, present: frozenset[str]) -> dict[str, ExpectedPartition | None]:
    schedule = wait.schedule
    if wait.partitions is not None:
        return {
            name: None if schedule is None else schedule.period_of(name, _time_of(name, schedule))
            for name in wait.partitions
        }
    if schedule is None:
        return {}
    from airflow_provider_xops.quality._partition_time import partition_time

    zone = ZoneInfo(schedule.timezone)
    times = [time for name in present if (time := partition_time(name, zone=zone)) is not None]
    # Nothing there yet: from a midnight so long ago that the last month has ended since.
    some_midnight = (wait.since.astimezone(zone) - timedelta(days=62)).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    ended = schedule.expected(since=min(times, default=some_midnight), as_of=wait.since)
    return {one.partition: one for one in ended[-1:]}


def _time_of(partition: str, schedule: ArrivalSchedule) -> datetime:
    from airflow_provider_xops.quality._partition_time import partition_time

    found = partition_time(partition, zone=ZoneInfo(schedule.timezone))
    if found is None:
        raise ArgumentError(
            f"nobody can say when partition {partition} is due", code="argument.wait",
            why="it is not called after a date or hour",
            todo="wait for it without a schedule, with a timeout",
        )  # fmt: skip
    return found
