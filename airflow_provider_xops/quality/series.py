"""The past of a table as series of points, one a partition, for charts and people.

Each partition gives the figures of the content that a version has of it. So a correction that arrives late
replaces its partition's point from the version on that brought it, and a check of an older version still sees
the older one. Partitions that a version no longer has (dropped after a year) stay in the series with the last
content that was measured. A table without partitions gives one point a measured version, ``@12``.

The series of a raw table and of the published one are two: charts look at the raw table, where a shift is
seen before anything is published.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import WHOLE, partition_digests
from airflow_provider_xops.lake.tables import resolve_ref
from airflow_provider_xops.quality._partition_time import names_a_zone, partition_time
from airflow_provider_xops.quality.spc import Point
from airflow_provider_xops.records import DatasetRef, QualityMetrics, SpecialCauseNote

__all__ = ["History", "label_of", "points_of", "series", "special_cause_notes"]


class History:
    """What was measured of one table up to one version: one record a point, ordered by time."""

    def __init__(self, records: Iterable[QualityMetrics]) -> None:
        self.records = tuple(sorted(records, key=_order))

    @classmethod
    def read(cls, lake: Lake, ref: DatasetRef, *, plan_digest: str | None = None) -> History:
        """Read it in one pass over the evidence.

        :param plan_digest: only what was measured by this plan; None: by any, the newest record of each
            metric.
        """
        digests = partition_digests(lake, ref)
        found: dict[str, list[QualityMetrics]] = {}
        for record in lake.evidence.all(QualityMetrics.kind):
            if (
                isinstance(record, QualityMetrics)
                and record.table_uuid == ref.table_uuid
                and (plan_digest is None or record.plan_digest == plan_digest)
            ):
                found.setdefault(label_of(record), []).append(record)
        return cls(
            one
            for label, records in found.items()
            for one in _of_version(label, records, digests, ref.version)
        )

    def up_to(self, label: str) -> History:
        """The same without the points after ``label``."""
        last = max((_order(one) for one in self.records if label_of(one) == label), default=None)
        return History(one for one in self.records if last is not None and _order(one) <= last)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of all metrics that any point has, sorted."""
        return tuple(sorted({name for one in self.records for name in one.metrics}))


def series(
    lake: Lake,
    table: str | DatasetRef,
    metric: str,
    *,
    until: str | None = None,
    version: int | None = None,
) -> list[Point]:
    """The points of one metric of a table, oldest first.

    :param table: its name (``flights__raw``), or one version of it.
    :param until: the last partition to take; None: all.
    :param version: as that version has the partitions; None: as the head has them.
    :return: points with the row count as their size, or the number of checks of a rate of failed checks.
        A partition that was measured and has no figure is a point without a value.
    :raises NotFoundError: no such table or version.
    """
    ref = table if isinstance(table, DatasetRef) else resolve_ref(lake, table, version, allow_raw=True)
    history = History.read(lake, ref)
    return points_of(history.up_to(until) if until is not None else history, metric)


def points_of(history: History, metric: str) -> list[Point]:
    """The points of one metric: of several records of one partition the newest that has a figure counts; one
    without a figure is a gap."""
    newest: dict[str, QualityMetrics] = {}
    for record in history.records:
        if metric in record.metrics:
            other = newest.get(label_of(record))
            if other is None or _preference(record, metric) > _preference(other, metric):
                newest[label_of(record)] = record
    return [_point(record, metric) for record in sorted(newest.values(), key=_order)]


def label_of(record: QualityMetrics) -> str:
    """What the record's point is called on a chart: its partition, or the version of an undivided table."""
    return f"@{record.dataset.version}" if record.partition == WHOLE else record.partition


def special_cause_notes(lake: Lake, ref: DatasetRef) -> list[SpecialCauseNote]:
    """What people noted about the table's time, ordered by start."""
    notes = [
        note
        for note in lake.evidence.all(SpecialCauseNote.kind)
        if isinstance(note, SpecialCauseNote) and note.table_uuid == ref.table_uuid
    ]
    return sorted(notes, key=lambda note: (note.start, note.record_id))


def _of_version(
    label: str, records: Sequence[QualityMetrics], digests: Mapping[str, str], version: int
) -> list[QualityMetrics]:
    """The records of the content that the version has; of a partition it lost, of the last it had before."""
    digest = digests.get(label)
    if digest is None:
        earlier = [one for one in records if one.dataset.version <= version]
        if not earlier or label.startswith("@"):
            return earlier
        digest = max(earlier, key=lambda one: (one.dataset.version, *_written(one))).content_digest
    return [one for one in records if one.content_digest == digest]


def _point(record: QualityMetrics, metric: str) -> Point:
    size: float | None = float(record.rows)
    if metric.startswith("failed_check_rate:"):
        size = record.metrics.get(f"check_count:{metric.partition(':')[2]}")
    return Point(
        label=label_of(record),
        time=_time(record),
        value=record.metrics[metric],
        size=size,
        floating=partition_time(record.partition) is not None and not names_a_zone(record.partition),
    )


def _time(record: QualityMetrics) -> datetime:
    return record.event_time or record.recorded_at


def _order(record: QualityMetrics) -> tuple[datetime, int, str]:
    version = record.dataset.version if record.partition == WHOLE else 0
    return _time(record), version, label_of(record)


def _written(record: QualityMetrics) -> tuple[datetime, str]:
    return record.recorded_at, record.record_id


def _preference(record: QualityMetrics, metric: str) -> tuple[bool, datetime, str]:
    return record.metrics[metric] is not None, *_written(record)
