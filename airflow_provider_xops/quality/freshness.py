"""Whether a table has what it should have by now: late, missing and thin partitions.

For the freshness sensor, its trigger, the command line and notebooks::

    state = freshness(lake, "flights", ArrivalSchedule(every="daily", grace="6h"), as_of=now)
    state.fresh, state.missing, state.late

A partition has arrived when its first version was committed, also if it has been dropped since. When that
was comes from the records of the table's commits. What is *missing* was due and is not there; what is *late*
came after it was due; what is not due yet is neither.

What it does not do: wait. :class:`~airflow_provider_xops.sensors.dataset.DatasetFreshnessSensor` does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

from airflow_provider_xops.errors import ArgumentError, NotFoundError
from airflow_provider_xops.lake.history import find_commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import WHOLE, count_rows, partitions
from airflow_provider_xops.lake.tables import open_table, resolve_ref, segments_of, table_info
from airflow_provider_xops.quality._partition_time import partition_time
from airflow_provider_xops.quality.arrival_schedule import ArrivalSchedule, ExpectedPartition
from airflow_provider_xops.quality.metrics import arrivals
from airflow_provider_xops.records import Actor, DatasetRef, Incident, Outcome, Severity

__all__ = [
    "Freshness",
    "LatePartition",
    "MissingPartition",
    "Volume",
    "VolumeRule",
    "freshness",
    "open_freshness_incidents",
    "open_missing_incidents",
    "partition_time",
    "volume",
]

log = logging.getLogger(__name__)

MISSING_INCIDENT = "missing_partition"
LATE_INCIDENT = "late_partition"
VOLUME_INCIDENT = "unexpected_volume"


@dataclass(frozen=True, kw_only=True, order=True)
class MissingPartition:
    """A partition that was due and has not arrived."""

    partition: str
    due_at: datetime


@dataclass(frozen=True, kw_only=True, order=True)
class LatePartition:
    """A partition that arrived after it was due."""

    partition: str
    arrived_at: datetime
    due_at: datetime


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """How a table stands against its schedule at one moment.

    :param latest: the newest partition that has arrived, by the time it stands for.
    :param lag_seconds: from the end of that partition's period to now: how far behind the data are.
    :param age_seconds: from the newest commit's arrival to now: how long nothing came.
    :param expected: how many partitions were due by now; ``present`` how many of them are there.
    :param fresh: something arrived, and nothing that was due is missing.
    """

    table: str
    as_of: datetime
    latest: str | None
    lag_seconds: float | None
    age_seconds: float | None
    expected: int
    present: int
    missing: tuple[MissingPartition, ...]
    late: tuple[LatePartition, ...]
    fresh: bool

    def to_json(self, *, limit: int | None = None) -> dict[str, Any]:
        """The state as plain JSON types; at most ``limit`` missing and late partitions, the newest."""
        shown = slice(None) if limit is None else slice(-limit, None)
        return {
            "table": self.table,
            "as_of": self.as_of.isoformat(),
            "latest": self.latest,
            "lag_seconds": self.lag_seconds,
            "age_seconds": self.age_seconds,
            "expected": self.expected,
            "present": self.present,
            "missing_count": len(self.missing),
            "late_count": len(self.late),
            "missing": [
                {"partition": one.partition, "due_at": one.due_at.isoformat()} for one in self.missing[shown]
            ],
            "late": [
                {
                    "partition": one.partition,
                    "arrived_at": one.arrived_at.isoformat(),
                    "due_at": one.due_at.isoformat(),
                }
                for one in self.late[shown]
            ],
            "fresh": self.fresh,
        }


@dataclass(frozen=True, kw_only=True)
class VolumeRule:
    """How many rows a partition should have: fixed bounds, or shares of what earlier ones had, or both.

    :param min_share: at least this share of the median of the last ``last`` partitions (0.5: half of it).
    :param max_share: at most this share of it (2: twice as many).
    :param last: how many earlier partitions to take the median of.
    :param min_points: with fewer earlier ones than this, shares say nothing.
    :param same_weekday: only those of the same weekday, where Sundays are small.
    """

    minimum: int | None = None
    maximum: int | None = None
    min_share: float | None = None
    max_share: float | None = None
    last: int = 14
    min_points: int = 3
    same_weekday: bool = False

    def __post_init__(self) -> None:
        """
        :raises ArgumentError: ``argument.volume``: it bounds nothing, or its bounds cross.
        """
        bounds = (self.minimum, self.maximum, self.min_share, self.max_share)
        crossed = (self.minimum is not None and self.maximum is not None and self.minimum > self.maximum) or (
            self.min_share is not None and self.max_share is not None and self.min_share > self.max_share
        )
        if all(bound is None for bound in bounds) or crossed or self.last < 1 or self.min_points < 1:
            raise ArgumentError(
                "the volume rule cannot be used", code="argument.volume",
                why="its bounds cross" if crossed else "it bounds nothing, or takes no partitions",
                todo="give minimum, maximum, min_share or max_share",
            )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A partition's row count against its rule.

    :param outcome: *no data*: only shares were asked for, and too few earlier partitions are there.
    """

    table: str
    partition: str
    rows: int
    lower: float | None
    upper: float | None
    compared: tuple[str, ...]
    outcome: Outcome
    message: str


def freshness(
    lake: Lake, table: str, schedule: ArrivalSchedule | None = None, *, as_of: datetime
) -> Freshness:
    """How ``table`` stands against a schedule.

    :param table: its name; a raw table's too. One that does not exist yet has nothing.
    :param schedule: None: nothing is expected, and it is fresh as soon as it has anything.
    :param as_of: the moment to judge at (UTC); what arrived later is not seen.
    """
    moments = _moments(lake, table, as_of)
    arrived = {name: min(each) for name, each in moments.items()}
    zone = ZoneInfo(schedule.timezone if schedule is not None else "UTC")
    times = {name: time for name in arrived if (time := partition_time(name, zone=zone)) is not None}
    latest = max(times, key=lambda name: (times[name], name), default=None)
    due: list[ExpectedPartition] = []
    if schedule is not None:
        ended = schedule.expected(since=min(times.values(), default=None), as_of=as_of)
        due = [one for one in ended if one.due <= as_of]
    missing = [one for one in due if one.partition not in arrived]
    lag = None
    if latest is not None:
        ends = schedule.period_of(latest, times[latest]).ends if schedule is not None else times[latest]
        lag = max(0.0, (as_of - ends).total_seconds())
    newest = max((max(each) for each in moments.values()), default=None)
    return Freshness(
        table=table,
        as_of=as_of,
        latest=latest if latest is not None else max(arrived, default=None),
        lag_seconds=lag,
        age_seconds=None if newest is None else (as_of - newest).total_seconds(),
        expected=len(due),
        present=len(due) - len(missing),
        missing=tuple(MissingPartition(partition=one.partition, due_at=one.due) for one in missing),
        late=tuple(
            LatePartition(partition=one.partition, arrived_at=arrived[one.partition], due_at=one.due)
            for one in due
            if one.partition in arrived and arrived[one.partition] > one.due
        ),
        fresh=bool(arrived) and not missing,
    )


def volume(lake: Lake, ref: DatasetRef, partition: str, rule: VolumeRule) -> Volume:
    """Whether a partition has as many rows as its rule expects, from the table's log.

    Only earlier partitions are compared with, so that judging an old one again gives the same answer.

    :raises NotFoundError: no such version or partition.
    """
    counts = _row_counts(lake, ref)
    if partition not in counts:
        count_rows(lake, ref, [partition])  # says that there is none, and what to do
    rows, time = counts[partition], partition_time(partition)
    earlier = sorted(
        (when, name)
        for name in counts
        if (when := partition_time(name)) is not None
        and time is not None
        and when < time
        and not (rule.same_weekday and when.weekday() != time.weekday())
    )
    compared = tuple(name for _, name in earlier[-rule.last :])
    lower: float | None = rule.minimum
    upper: float | None = rule.maximum
    known = len(compared) >= rule.min_points
    if known:
        middle = median(counts[name] for name in compared)
        if rule.min_share is not None:
            lower = max(rule.min_share * middle, lower if lower is not None else 0)
        if rule.max_share is not None:
            upper = min(rule.max_share * middle, upper) if upper is not None else rule.max_share * middle
    outcome, message = Outcome.PASSED, f"{rows} rows"
    if lower is None and upper is None:
        outcome, message = Outcome.NO_DATA, f"{len(compared)} earlier partitions are too few to compare with"
    elif lower is not None and rows < lower:
        outcome, message = Outcome.FAILED, f"{rows} rows, at least {lower:,.6g} are expected"
    elif upper is not None and rows > upper:
        outcome, message = Outcome.FAILED, f"{rows} rows, at most {upper:,.6g} are expected"
    return Volume(
        table=ref.table,
        partition=partition,
        rows=rows,
        lower=lower,
        upper=upper,
        compared=compared if known else (),
        outcome=outcome,
        message=message,
    )


def open_freshness_incidents(
    lake: Lake,
    state: Freshness,
    volumes: Sequence[Volume] = (),
    *,
    actor: Actor,
    as_of: datetime,
) -> list[Incident]:
    """Record what a person must look at; gives those that are new.

    One incident a missing partition, one a partition that came late, one a partition of unexpected volume:
    found again they are the same.
    """
    missing = {one.partition: one.due_at for one in state.missing}
    opened = open_missing_incidents(lake, state.table, missing, actor=actor, as_of=as_of)
    found = [
        _incident(LATE_INCIDENT, state.table, one.partition, Severity.INFO, one.arrived_at,
                  f"it was due at {one.due_at.isoformat()} and arrived at {one.arrived_at.isoformat()}",
                  "clear what ran before it arrived, or give the schedule more grace")
        for one in state.late
    ]  # fmt: skip
    found += [
        _incident(VOLUME_INCIDENT, one.table, one.partition, Severity.WARNING, partition_time(one.partition),
                  one.message, "compare the partition with its source, then load it again")
        for one in volumes
        if one.outcome is Outcome.FAILED
    ]  # fmt: skip
    return opened + _opened(lake, found, actor=actor, as_of=as_of)


def open_missing_incidents(
    lake: Lake, table: str, due: Mapping[str, datetime], *, actor: Actor, as_of: datetime
) -> list[Incident]:
    """Record one incident a partition that was due (partition to moment) and has not arrived; gives the new
    ones."""
    found = [
        _incident(MISSING_INCIDENT, table, partition, Severity.WARNING, moment,
                  f"it was due at {moment.isoformat()} and has not arrived",
                  "see whether the source delivered, then run the load of this partition")
        for partition, moment in due.items()
    ]  # fmt: skip
    return _opened(lake, found, actor=actor, as_of=as_of)


def _opened(
    lake: Lake, found: Sequence[Mapping[str, Any]], *, actor: Actor, as_of: datetime
) -> list[Incident]:
    made = [Incident(recorded_at=as_of, produced_by=actor.producer, **fields) for fields in found]
    return [one for one in made if lake.evidence.put(one)]


def _incident(
    incident: str,
    table: str,
    partition: str,
    severity: Severity,
    event_time: datetime | None,
    what: str,
    next_step: str,
) -> Mapping[str, Any]:
    return {
        "incident": incident,
        "subject": f"{table}/{partition}",
        "severity": severity,
        "event_time": event_time,
        "message": f"Partition {partition} of {table}: {what}.",
        "next_step": next_step,
    }


def _moments(lake: Lake, table: str, as_of: datetime) -> dict[str, list[datetime]]:
    """By partition, when versions of it arrived, up to ``as_of``; empty for a table that is not there."""
    try:
        ref = resolve_ref(lake, table, allow_raw=True)
    except NotFoundError:
        return {}
    found = {name: [moment for _, moment in each] for name, each in arrivals(lake, ref).items()}
    for name in partitions(lake, ref):
        if name not in found:  # its record was lost between commit and evidence: the table's log has it
            found[name] = [moment] if (moment := _committed_at(lake, ref, name)) is not None else []
    known = {name: [moment for moment in each if moment <= as_of] for name, each in found.items()}
    return {name: each for name, each in known.items() if each}


def _committed_at(lake: Lake, ref: DatasetRef, partition: str) -> datetime | None:
    handle = open_table(lake, ref.table, ref.version)
    if table_info(handle) is None:
        return None
    file = next((one for one in segments_of(handle) if one.partition == partition), None)
    if file is None:
        return None
    _, metadata = find_commit(lake, handle, table=ref.table, file=file)
    return datetime.fromisoformat(str(metadata["recorded_at"]))


def _row_counts(lake: Lake, ref: DatasetRef) -> dict[str, int]:
    handle = open_table(lake, ref.table, ref.version)
    if table_info(handle) is None:
        return {WHOLE: count_rows(lake, ref)}
    counts: dict[str, int] = {}
    for file in segments_of(handle):
        counts[file.partition] = counts.get(file.partition, 0) + file.rows
    return counts
