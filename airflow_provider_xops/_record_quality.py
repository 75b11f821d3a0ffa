"""The records of data quality: metrics, profiles, control charts, quarantine.

Private to :mod:`airflow_provider_xops.records`, which gives them to everybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from airflow_provider_xops._record_base import Record
from airflow_provider_xops._record_values import ControlSignal, DatasetRef, Outcome, SchemaChange

__all__ = ["ControlChartReport", "DatasetProfile", "QualityMetrics", "QuarantineReport", "SpecialCauseNote"]


@dataclass(frozen=True, kw_only=True)
class QualityMetrics(Record):
    """Quality metrics of one partition: one point of every series that control charts judge.

    :param metrics: name to value, ``null_rate:arr_delay`` for example; None where there was nothing to
        compute it from.
    :param definition_digest: what was asked for (and of which validations the rates of failed checks are);
        another definition is another record.
    :param plan_digest: the metric plan alone: the records of one series share it.
    :param event_time: the time the partition stands for.
    """

    kind: ClassVar[str] = "quality_metrics"
    identity: ClassVar[tuple[str, ...]] = ("table_uuid", "partition", "content_digest", "definition_digest")

    lake_id: str
    table: str
    table_uuid: str
    partition: str
    content_digest: str
    definition_digest: str
    dataset: DatasetRef
    rows: int
    metrics: dict[str, float | None]
    plan_digest: str = ""
    reports: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DatasetProfile(Record):
    """What the columns of a dataset version hold: figures only; values of rows are in its documents.

    :param columns: one mapping a column: name, type, counts, moments, quantiles.
    :param profile_uri: the whole profile as JSON (with top values, where the privacy policy lets them).
    :param previous: the version that ``schema_changes`` are against; None: there is none to compare with.
    """

    kind: ClassVar[str] = "profiles"
    identity: ClassVar[tuple[str, ...]] = (
        "dataset",
        "partitions",
        "content_digest",
        "settings_digest",
        "previous",
    )

    dataset: DatasetRef
    partitions: tuple[str, ...] | None
    content_digest: str
    settings_digest: str
    rows: int
    columns: tuple[dict[str, Any], ...]
    table_facts: dict[str, Any]
    previous: DatasetRef | None = None
    schema_changes: tuple[SchemaChange, ...] = ()
    profile_uri: str | None = None
    report_uri: str | None = None


@dataclass(frozen=True, kw_only=True)
class ControlChartReport(Record):
    """The newest point of several metrics against their control charts.

    :param plan_digest: which charts, rules, baselines and special causes.
    :param series_digest: the points that were looked at.
    :param outcome: *failed*: at least one chart signals; *no data*: no chart had enough points for limits.
    :param charts: one mapping a chart: metric, chart, phase, points, center, limits, value.
    """

    kind: ClassVar[str] = "control_charts"
    identity: ClassVar[tuple[str, ...]] = ("table_uuid", "partition", "plan_digest", "series_digest")

    lake_id: str
    table: str
    table_uuid: str
    partition: str
    plan_digest: str
    series_digest: str
    outcome: Outcome
    signals: tuple[ControlSignal, ...] = ()
    charts: tuple[dict[str, Any], ...] = ()
    dataset: DatasetRef | None = None
    report_uri: str | None = None


@dataclass(frozen=True, kw_only=True)
class QuarantineReport(Record):
    """Rows set aside, or brought back: ``rows`` of the raw partitions are the accepted and the quarantined.

    :param action: ``quarantined`` or ``released``.
    :param reasons: check to rows that broke it; a row that broke several counts for each.
    :param accepted: the version that goes on; ``quarantine`` the one that keeps the rest.
    :param validation: record id of the report that the split was made from; ``judged`` of the one about the
        accepted rows.
    """

    kind: ClassVar[str] = "quarantines"
    identity: ClassVar[tuple[str, ...]] = (
        "action",
        "raw",
        "partitions",
        "accepted",
        "quarantine",
        "suite_digest",
    )

    action: str
    raw: DatasetRef
    partitions: tuple[str, ...]
    suite: str
    suite_digest: str
    rows: int
    accepted_rows: int
    quarantined_rows: int
    reasons: dict[str, int]
    accepted: DatasetRef
    quarantine: DatasetRef
    validation: str
    released_rows: int = 0
    reason: str = ""
    judged: str = ""
    report_uri: str | None = None


@dataclass(frozen=True, kw_only=True)
class SpecialCauseNote(Record):
    """What a person knows about a stretch of a table's time: a special cause, for its control charts.

    :param start: the first moment it covers; ``end`` the last (None: it lasts).
    :param metric: of this metric only, ``row_count`` for example; None: of all of the table's.
    :param action: ``exclude``: the points stay on the chart and out of its limits; ``step``: the process is
        another one from ``start`` on, and limits begin anew there.
    """

    kind: ClassVar[str] = "special_causes"
    identity: ClassVar[tuple[str, ...]] = (
        "lake_id",
        "table_uuid",
        "metric",
        "start",
        "end",
        "action",
        "reason",
    )

    lake_id: str
    table: str
    table_uuid: str
    metric: str | None
    start: datetime
    end: datetime | None
    action: str
    reason: str
