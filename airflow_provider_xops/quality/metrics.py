"""What is measured of every partition that arrives, so that charts and people can see it change.

For the control chart operator, the command line and notebooks::

    plan = MetricPlan(columns={"distance": ["mean", "sd"], "tail": ["null_rate"]},
                      sql={"late_share": "SELECT avg(arr_delay > 15) FROM dataset"},
                      freshness="time_hour", suites=True)
    measure(lake, ref, partitions=["2013-01-01"], plan=plan, actor=me, as_of=now)

Metrics have names: ``row_count``, ``null_rate:COLUMN``, ``distinct_count:COLUMN``, ``mean:COLUMN``,
``sd:COLUMN``, ``min:COLUMN``, ``max:COLUMN``, ``quantile_0.5:COLUMN`` (the median), ``freshness_seconds``,
``failed_check_rate:SUITE`` (with ``check_count:SUITE``, how many it is a rate of) and ``sql:NAME``. NaN
counts as missing; a figure that does not exist (the mean of no rows) is None.

One partition with one content, measured by one plan, is one record: measured again it is read from the
evidence. The rate of failed checks is of the newest report on exactly that content; a report that came later
makes another record.

What it does not do: judge. That is :mod:`~airflow_provider_xops.quality.control`.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow_provider_xops.data.sql import parse_query
from airflow_provider_xops.errors import ArgumentError, NotFoundError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import WHOLE, content_digest, partition_digests
from airflow_provider_xops.quality._documents import load_document
from airflow_provider_xops.quality._metric_sql import ColumnFigures, as_mapping, scalar_figure
from airflow_provider_xops.quality._partition_time import partition_time
from airflow_provider_xops.records import (
    Actor,
    DatasetRef,
    DatasetVersion,
    Outcome,
    QualityMetrics,
    ValidationReport,
    digest_of,
)

__all__ = ["MetricPlan", "arrivals", "load_metric_plan", "measure"]

log = logging.getLogger(__name__)

_WRITERS = 8


@dataclass(frozen=True, kw_only=True)
class MetricPlan:
    """Which metrics are taken of a partition; the row count always is.

    :param columns: column to its statistics (``"*"`` is every column that can have them, ``"default"`` what
        the column's type says: null rate; mean and median of numbers, the share of true of booleans, distinct
        count of texts); or columns, by their types; None: all columns, by their types.
    :param sql: name to a SELECT over the table ``dataset`` that gives one number. It runs in DuckDB and
        reaches nothing but the partition's rows.
    :param freshness: a column of times: ``freshness_seconds`` is how old its newest value was when the
        partition arrived.
    :param suites: suites whose failed checks are counted; True: every suite that was run.
    """

    columns: Mapping[str, Sequence[str]] | Sequence[str] | None = None
    sql: Mapping[str, str] = field(default_factory=dict)
    freshness: str | None = None
    suites: Sequence[str] | bool = ()

    def __post_init__(self) -> None:
        """
        :raises ArgumentError: ``argument.metric``: an unknown statistic; ``argument.sql``: not one SELECT.
        """
        as_mapping(self.columns)
        for text in self.sql.values():
            parse_query(text)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON types, in its one spelling."""
        return {
            "columns": {name: list(asked) for name, asked in as_mapping(self.columns).items()},
            "sql": {name: self.sql[name].strip() for name in sorted(self.sql)},
            "freshness": self.freshness,
            "suites": self.suites if isinstance(self.suites, bool) else sorted(self.suites),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MetricPlan:
        """The plan that :meth:`to_json` gave, or a person wrote as YAML.

        :raises ArgumentError: ``argument.metric_plan``.
        """
        unknown = sorted(set(data) - {"columns", "sql", "freshness", "suites"})
        columns, sql, suites = data.get("columns"), data.get("sql") or {}, data.get("suites") or ()
        if isinstance(suites, str):
            suites = [suites]
        if unknown:
            raise _unusable(f"it has {unknown[0]!r}")
        if not (columns is None or isinstance(columns, Mapping | list | tuple)):
            raise _unusable("columns is neither a list of names nor a mapping")
        if not isinstance(sql, Mapping) or not isinstance(suites, bool | list | tuple):
            raise _unusable("sql is not a mapping, or suites is not a list")
        if isinstance(columns, Mapping):
            columns = {
                str(name): [one] if isinstance(one, str) else list(one) for name, one in columns.items()
            }
        return cls(
            columns=columns,
            sql={str(name): str(text) for name, text in sql.items()},
            freshness=data.get("freshness"),
            suites=suites,
        )

    @property
    def digest(self) -> str:
        """SHA-256 over the plan's JSON."""
        return digest_of(self.to_json())


def load_metric_plan(
    given: MetricPlan | Mapping[str, Any] | str | Callable[[], Any] | None,
) -> MetricPlan:
    """A plan from its object, its JSON, a ``.json`` or ``.yaml`` file, or ``package.module:function``.

    None is the default plan: all columns, by their types.

    :raises ArgumentError: it is none of these; :raises UserCodeError: there is no such function.
    """
    found = load_document(given, what="metric plan") if given is not None else MetricPlan()
    if isinstance(found, MetricPlan):
        return found
    if not isinstance(found, Mapping):
        raise _unusable(f"it is a {type(found).__name__}")
    return MetricPlan.from_json(found)


def measure(
    lake: Lake,
    ref: DatasetRef,
    *,
    partitions: Sequence[str] | None = None,
    plan: MetricPlan | None = None,
    actor: Actor,
    as_of: datetime,
) -> list[QualityMetrics]:
    """Measure partitions of a version and record what was found, one record a partition, in their order.

    :param ref: the version; usually a raw table's, so that a shift is seen before it is published.
    :param partitions: only these; None: all of the version's.
    :param plan: what to measure; None: the default plan.
    :param as_of: the time to record (UTC).
    :raises NotFoundError: no such version or partition; :raises ArgumentError: the plan does not fit the
        table; :raises DataError: a column cannot be reckoned with (``data.metrics``).
    """
    plan = plan or MetricPlan()
    digests = partition_digests(lake, ref)
    names = sorted(digests) if partitions is None else list(dict.fromkeys(partitions))
    if partitions is not None:
        content_digest(lake, ref, names)  # refuses what the version does not have
    validations = list(_validations(lake, plan))
    # One listing for many partitions; a few are asked for by name, so that a daily task does not read years.
    known: dict[str, QualityMetrics] | None = None
    if len(names) > 3:
        everything = lake.evidence.all(QualityMetrics.kind)
        known = {one.record_id: one for one in everything if isinstance(one, QualityMetrics)}
    timed = [partition_time(name) is not None for name in names]
    arrived = arrivals(lake, ref) if plan.freshness or not all(timed) else {}
    columns = ColumnFigures(lake, ref, plan.columns, newest=plan.freshness)
    found: list[QualityMetrics] = []
    made: dict[int, Future[QualityMetrics]] = {}
    with ExitStack() as stack:
        connection = None
        # An object store takes longer to answer than a partition to measure: records are written meanwhile.
        writers = stack.enter_context(ThreadPoolExecutor(_WRITERS, thread_name_prefix="xops-metrics"))
        for at, name in enumerate(names):
            reports = _reports_of(validations, name, digests[name])
            record = _record(ref, name, digests[name], plan, reports, actor=actor, as_of=as_of)
            earlier = _known(lake, record.record_id, known)
            if earlier is None:
                connection = connection or stack.enter_context(columns.session())
                arrival = _arrival(arrived, name, ref.version) or as_of
                figures = columns.of(connection, name)
                earlier = _measured(lake, record, plan, reports, arrival, figures)
                made[at] = writers.submit(_kept, lake, earlier)
            found.append(earlier)
        for at, written in made.items():
            found[at] = written.result()
    if made:
        log.info(
            "Measured %d of %d partitions of %s: %d metrics.",
            len(made), len(names), ref, len(found[-1].metrics),
        )  # fmt: skip
    return found


def arrivals(lake: Lake, ref: DatasetRef) -> dict[str, list[tuple[int, datetime]]]:
    """By partition, when versions of it arrived: (version, moment) in the order of versions.

    From the records of the table's commits, in one pass; an adopted table's say when it was adopted.
    """
    found: dict[str, list[tuple[int, datetime]]] = {}
    for record in lake.evidence.all(DatasetVersion.kind):
        if isinstance(record, DatasetVersion) and record.table_uuid == ref.table_uuid:
            for name in record.partitions or (WHOLE,):
                found.setdefault(name, []).append((record.version, record.recorded_at))
    return {name: sorted(moments) for name, moments in found.items()}


def _record(
    ref: DatasetRef,
    partition: str,
    digest: str,
    plan: MetricPlan,
    reports: Sequence[ValidationReport],
    *,
    actor: Actor,
    as_of: datetime,
) -> QualityMetrics:
    """The record without its figures: enough to know whether it exists."""
    ids = tuple(report.record_id for report in reports)
    # Of a table without partitions every version is a point of its own, also one that brings old rows back.
    definition = [plan.to_json(), list(ids), ref.version if partition == WHOLE else None]
    return QualityMetrics(
        recorded_at=as_of,
        produced_by=actor.producer,
        lake_id=ref.lake_id,
        table=ref.table,
        table_uuid=ref.table_uuid,
        partition=partition,
        content_digest=digest,
        definition_digest=digest_of(definition),
        dataset=ref,
        rows=0,
        metrics={},
        plan_digest=plan.digest,
        reports=ids,
    )


def _measured(
    lake: Lake,
    empty: QualityMetrics,
    plan: MetricPlan,
    reports: Sequence[ValidationReport],
    arrival: datetime,
    found: tuple[int, dict[str, float | None], float | None],
) -> QualityMetrics:
    ref, partition = empty.dataset, empty.partition
    rows, figures, newest = found
    metrics: dict[str, float | None] = {"row_count": float(rows), **figures}
    if plan.freshness:
        metrics["freshness_seconds"] = None if newest is None else arrival.timestamp() - newest
    for report in reports:
        ran = report.counts.get(Outcome.PASSED, 0) + report.counts.get(Outcome.FAILED, 0)
        failed = report.counts.get(Outcome.FAILED, 0)
        metrics[f"failed_check_rate:{report.suite}"] = failed / ran if ran else None
        metrics[f"check_count:{report.suite}"] = float(ran)
    for name, text in plan.sql.items():
        metrics[f"sql:{name}"] = scalar_figure(lake, ref, partition, parse_query(text), name=name)
    return dataclasses.replace(
        empty, rows=rows, metrics=metrics, event_time=partition_time(partition) or arrival
    )


def _kept(lake: Lake, record: QualityMetrics) -> QualityMetrics:
    """Write the record; gives the one that is kept."""
    if not lake.evidence.put(record, quiet=True):  # another attempt was faster: its record is kept
        kept = lake.evidence.get(QualityMetrics.kind, record.record_id)
        record = kept if isinstance(kept, QualityMetrics) else record
    return record


def _validations(lake: Lake, plan: MetricPlan) -> Iterable[ValidationReport]:
    if plan.suites is False or not plan.suites:
        return
    for report in lake.evidence.all(ValidationReport.kind):
        if (
            isinstance(report, ValidationReport)
            and report.outcome in (Outcome.PASSED, Outcome.FAILED)
            and (plan.suites is True or report.suite in plan.suites)
        ):
            yield report


def _reports_of(
    reports: Iterable[ValidationReport], partition: str, digest: str
) -> tuple[ValidationReport, ...]:
    """The newest report of each suite about exactly this content; one about several partitions is not.

    By content and not by table: what passed as raw data is the same rows when it is published.
    """
    newest: dict[str, ValidationReport] = {}
    for report in reports:
        alone = report.partitions == (partition,) or (partition == WHOLE and report.partitions is None)
        if not alone or report.partition_digests != (digest,):
            continue
        other = newest.get(report.suite)
        if other is None or (report.recorded_at, report.record_id) > (other.recorded_at, other.record_id):
            newest[report.suite] = report
    return tuple(newest[suite] for suite in sorted(newest))


def _known(lake: Lake, record_id: str, known: Mapping[str, QualityMetrics] | None) -> QualityMetrics | None:
    if known is not None:
        return known.get(record_id)
    try:
        found = lake.evidence.get(QualityMetrics.kind, record_id)
    except NotFoundError:
        return None
    return found if isinstance(found, QualityMetrics) else None


def _arrival(
    arrived: Mapping[str, Sequence[tuple[int, datetime]]], partition: str, version: int
) -> datetime | None:
    """When the content that ``version`` has of the partition arrived: with the last commit up to it."""
    moments = [moment for number, moment in arrived.get(partition, ()) if number <= version]
    return moments[-1] if moments else None


def _unusable(why: str) -> ArgumentError:
    return ArgumentError(
        "the metric plan cannot be used", code="argument.metric_plan", why=why,
        todo="give columns, sql, freshness and suites, as MetricPlan takes them",
    )  # fmt: skip
