"""The newest partition of a table on its control charts, and the report that stays.

For the control chart operator, the command line and notebooks::

    report = check_control_charts(lake, ref, partition="2013-02-08", plan="my_project.charts:flights",
                                  actor=me, as_of=now)
    [signal.message for signal in report.signals]

What the charts need is measured where it was not yet, of all earlier partitions too: a table with a history
has limits on the first day. The series ends with the partition that is judged, whatever arrived later, and
earlier partitions count with the content that the judged *version* has of them. So a day that is replayed is
judged as it was, except for what people have noted since: special causes are part of the question.

What it does not do: change data, or decide what a signal means. A signal says "look here, and since when".
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_provider_xops.errors import NotFoundError, ValidationError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import partitions as partitions_of
from airflow_provider_xops.lake.read import schema_of
from airflow_provider_xops.quality._control_page import control_page
from airflow_provider_xops.quality._partition_time import partition_time
from airflow_provider_xops.quality.control_plan import ControlPlan, load_control_plan, plan_json
from airflow_provider_xops.quality.metrics import MetricPlan, measure
from airflow_provider_xops.quality.series import History, label_of, points_of, special_cause_notes
from airflow_provider_xops.quality.spc import ChartSpec, ChartVerdict, Point, SpecialCause, judge
from airflow_provider_xops.records import (
    Actor,
    ControlChartReport,
    ControlSignal,
    DatasetRef,
    Incident,
    Outcome,
    QualityMetrics,
    Severity,
    SpecialCauseNote,
    digest_of,
)

__all__ = [
    "annotate",
    "check_control_charts",
    "check_partitions",
    "open_chart_incidents",
    "out_of_control",
]

log = logging.getLogger(__name__)

INCIDENT = "out_of_control"

PlanLike = ControlPlan | Mapping[str, Any] | Sequence[Any] | str | Callable[[], Any]


@dataclass(frozen=True)
class _Question:
    """What is asked of every partition: charts, metrics, and what people know."""

    specs: tuple[ChartSpec, ...]
    metrics: MetricPlan
    causes: tuple[SpecialCause, ...]

    @property
    def digest(self) -> str:
        return digest_of(plan_json(self.specs, self.causes, self.metrics))


def check_control_charts(
    lake: Lake,
    ref: DatasetRef,
    *,
    partition: str | None = None,
    plan: PlanLike,
    metrics: MetricPlan | None = None,
    actor: Actor,
    as_of: datetime,
) -> ControlChartReport:
    """Judge one partition of a version and record the report, with its page.

    :param ref: the version; a raw table's, so that a shift is seen before it is published.
    :param partition: None: the version's newest partition, by the time it stands for.
    :param plan: see :mod:`~airflow_provider_xops.quality.control_plan`.
    :param metrics: what to measure besides what the charts need; None: what the plan says.
    :param as_of: the time to record (UTC).
    :return: the report: *failed* if any chart signals, *no data* if none of them could judge, else *passed*.
        The same points judged by the same plan are one report.
    :raises ArgumentError: the plan is unusable or does not fit the table; :raises UserCodeError: its function
        is; :raises NotFoundError: there is no such version or partition.
    """
    chosen = None if partition is None else [partition]
    return check_partitions(
        lake, ref, partitions=chosen, plan=plan, metrics=metrics, actor=actor, as_of=as_of
    )[-1]


def check_partitions(
    lake: Lake,
    ref: DatasetRef,
    *,
    partitions: Sequence[str] | None,
    plan: PlanLike,
    metrics: MetricPlan | None = None,
    actor: Actor,
    as_of: datetime,
) -> list[ControlChartReport]:
    """Judge several partitions of a version, each with the points before it; reports ordered by time.

    :param partitions: None: the newest one.
    """
    loaded = load_control_plan(plan)
    specs = loaded.for_schema(schema_of(lake, ref))
    notes = [_cause_of(note) for note in special_cause_notes(lake, ref)]
    question = _Question(
        specs, loaded.metric_plan(specs, metrics), tuple(dict.fromkeys([*loaded.special_causes, *notes]))
    )
    ordered = _by_time(partitions_of(lake, ref))
    if not ordered:
        raise NotFoundError(
            f"{ref} has no partition to judge", code="not_found.partition", todo="load something first"
        )
    wanted = ordered[-1:] if partitions is None else list(dict.fromkeys(partitions))
    missing = sorted(set(wanted) - set(ordered))
    if missing:
        raise NotFoundError(
            f"{ref} has no partition {', '.join(missing[:10])}", code="not_found.partition",
            why=f"it has {len(ordered)} partitions", todo="load it first, or correct the name",
            context={"table": ref.table, "version": ref.version},
        )  # fmt: skip
    last = max(ordered.index(name) for name in wanted)
    untimed = [name for name in ordered[last + 1 :] if partition_time(name) is None]
    measured = measure(
        lake,
        ref,
        partitions=[*ordered[: last + 1], *untimed],
        plan=question.metrics,
        actor=actor,
        as_of=as_of,
    )
    records = {record.partition: record for record in measured}
    history = History.read(lake, ref, plan_digest=question.metrics.digest)
    return [
        _checked(lake, ref, records[name], history, question, actor=actor, as_of=as_of)
        for name in ordered
        if name in set(wanted)
    ]


def out_of_control(report: ControlChartReport) -> ValidationError:
    """The error that says what a report found: which metrics, which rules, and since when.

    Code ``validation.out_of_control``, or ``validation.no_limits`` for a report that judged nothing.
    """
    page = f"look at {report.report_uri}; " if report.report_uri else ""
    if report.outcome is Outcome.NO_DATA:
        return ValidationError(
            f"no control chart of {report.table} has limits yet at {report.partition}",
            code="validation.no_limits", why=_why_no_limits(report),
            todo=f"{page}let more partitions arrive, or lower min_points",
            context={"record_id": report.record_id},
        )  # fmt: skip
    told = "; ".join(signal_text(signal) for signal in report.signals[:5])
    more = len(report.signals) - 5
    return ValidationError(
        f"{report.table} is out of control at {report.partition}", code="validation.out_of_control",
        why=told + (f"; and {more} more" if more > 0 else ""),
        todo=f"{page}find the cause, then correct the data, or note it: xops charts annotate {report.table}",
        context={"record_id": report.record_id, "signals": len(report.signals)},
    )  # fmt: skip


def signal_text(signal: ControlSignal) -> str:
    """One signal in words: the metric, the rule, and since when."""
    parts = [signal.rule, signal.message.rstrip(".")]
    if signal.since not in signal.message:
        parts.append(f"since {signal.since}")
    return f"{signal.metric} left its natural range: {', '.join(part for part in parts if part)}"


def open_chart_incidents(
    lake: Lake, reports: Sequence[ControlChartReport], *, actor: Actor, as_of: datetime
) -> list[Incident]:
    """Record one incident a signal; gives those that are new.

    What goes on is the same incident the day after: for as long as each partition that is judged signals by
    the same metric and rule, whatever its limits do meanwhile. Days without data do not end it.

    :param reports: of one table.
    """
    signaling = [report for report in reports if report.signals]
    if not signaling:
        return []
    past = _reports_by_time(lake, signaling[0].table_uuid)
    made = [
        Incident(
            recorded_at=as_of,
            produced_by=actor.producer,
            event_time=report.event_time,
            incident=INCIDENT,
            subject=f"{report.table}/{signal.metric}/{signal.rule}/{_began(signal, report, past)}",
            severity=Severity.WARNING,
            message=f"{report.table}: {signal_text(signal)}; value {_figure(signal.value)}, limits"
            f" {_figure(signal.lower)} to {_figure(signal.upper)}. Report: {report.record_id}.",
            next_step="find the cause; if it is known, note it with `xops charts annotate`",
        )
        for report in signaling
        for signal in report.signals
    ]
    return [one for one in made if lake.evidence.put(one)]


def annotate(
    lake: Lake,
    ref: DatasetRef,
    *,
    start: datetime,
    end: datetime | None,
    reason: str,
    metric: str | None = None,
    action: str = "exclude",
    actor: Actor,
    as_of: datetime,
) -> SpecialCauseNote:
    """Note a special cause in the lake, for all charts of the table from now on.

    :param ref: any version of the table.
    :param start: first moment; ``end`` last one (None: it lasts).
    :param metric: of this metric only.
    :param action: ``exclude``: these points make no limits and do not signal; ``step``: the process is
        another one from ``start`` on.
    :raises ArgumentError: ``argument.control_chart``: no reason, or an end before the start.
    """
    SpecialCause(start=start, end=end, reason=reason, metrics=(metric,) if metric else None, action=action)
    note = SpecialCauseNote(
        recorded_at=as_of,
        produced_by=actor.producer,
        event_time=start,
        lake_id=ref.lake_id,
        table=ref.table,
        table_uuid=ref.table_uuid,
        metric=metric,
        start=start,
        end=end,
        action=action,
        reason=reason.strip(),
    )
    if lake.evidence.put(note):
        log.info("Noted a special cause of %s from %s: %s", ref.table, start.isoformat(), note.reason)
        return note
    kept = lake.evidence.get(SpecialCauseNote.kind, note.record_id)
    return kept if isinstance(kept, SpecialCauseNote) else note


def _checked(
    lake: Lake,
    ref: DatasetRef,
    newest: QualityMetrics,
    history: History,
    question: _Question,
    *,
    actor: Actor,
    as_of: datetime,
) -> ControlChartReport:
    past = history.up_to(label_of(newest))
    series = {spec.metric: points_of(past, spec.metric) for spec in question.specs}
    report = ControlChartReport(
        recorded_at=as_of,
        produced_by=actor.producer,
        event_time=newest.event_time,
        lake_id=ref.lake_id,
        table=ref.table,
        table_uuid=ref.table_uuid,
        partition=newest.partition,
        plan_digest=question.digest,
        series_digest=digest_of(
            {metric: [_digestible(one) for one in points] for metric, points in series.items()}
        ),
        outcome=Outcome.NO_DATA,
        dataset=ref,
    )
    try:
        known = lake.evidence.get(ControlChartReport.kind, report.record_id)
    except NotFoundError:
        known = None
    if isinstance(known, ControlChartReport):
        log.info(
            "%s, partition %s, was judged on these points before: %s.", ref, newest.partition, known.outcome
        )
        return known
    verdicts = [judge(spec, series[spec.metric], question.causes) for spec in question.specs]
    report = dataclasses.replace(
        report,
        outcome=_outcome(verdicts),
        signals=tuple(signal for verdict in verdicts for signal in verdict.signals),
        charts=tuple(_summary(verdict) for verdict in verdicts),
    )
    page = lake.evidence.put_report(
        f"control_charts/{report.record_id}.html",
        control_page(report, verdicts, signal_text),
        content_type="text/html",
    )
    report = dataclasses.replace(report, report_uri=page)
    if not lake.evidence.put(report):  # another attempt was faster: its report is the one that is kept
        kept = lake.evidence.get(ControlChartReport.kind, report.record_id)
        report = kept if isinstance(kept, ControlChartReport) else report
    log.info(
        "Control charts of %s at %s: %s (%d charts, %d signals).",
        ref, newest.partition, report.outcome, len(verdicts), len(report.signals),
    )  # fmt: skip
    return report


def _reports_by_time(lake: Lake, table_uuid: str) -> list[ControlChartReport]:
    """All reports of a table in the order of what they judged; of one partition the newest comes last."""
    found = [
        one
        for one in lake.evidence.all(ControlChartReport.kind)
        if isinstance(one, ControlChartReport) and one.table_uuid == table_uuid
    ]
    return sorted(found, key=lambda one: (*_judged_at(one), one.recorded_at, one.record_id))


def _began(signal: ControlSignal, report: ControlChartReport, past: Sequence[ControlChartReport]) -> str:
    """Since when the signal has gone on: through every judged partition before that has it too."""
    since, seen = signal.since, _judged_at(report)
    for other in reversed(past):
        if _judged_at(other) >= seen:
            continue  # the partition itself or a later one, or an older report on a partition already seen
        outcomes = {chart["outcome"] for chart in other.charts if chart["metric"] == signal.metric}
        if outcomes <= {Outcome.NO_DATA.value}:
            continue
        seen = _judged_at(other)
        same = [one for one in other.signals if (one.metric, one.rule) == (signal.metric, signal.rule)]
        if not same:
            break
        since = same[0].since
    return since


def _judged_at(report: ControlChartReport) -> tuple[datetime, str]:
    return report.event_time or report.recorded_at, report.partition


def _outcome(verdicts: Sequence[ChartVerdict]) -> Outcome:
    found = {verdict.outcome for verdict in verdicts}
    for outcome in (Outcome.FAILED, Outcome.PASSED):
        if outcome in found:
            return outcome
    return Outcome.NO_DATA


def _summary(verdict: ChartVerdict) -> dict[str, Any]:
    return {
        "metric": verdict.spec.metric,
        "chart": verdict.spec.chart,
        "outcome": verdict.outcome.value,
        "phase": verdict.phase,
        "points": len(verdict.values),
        "baseline_points": verdict.n_used,
        "value": verdict.value,
        "center": verdict.center,
        "lower": verdict.lower,
        "upper": verdict.upper,
        "sigma": verdict.sigma,
        "stratum": verdict.stratum,
        "stable": verdict.stable,
        "notes": list(verdict.notes),
    }


def _why_no_limits(report: ControlChartReport) -> str:
    points = {chart["metric"]: chart["points"] for chart in report.charts}
    return ", ".join(f"{metric} has {count} point(s)" for metric, count in list(points.items())[:5])


def _cause_of(note: SpecialCauseNote) -> SpecialCause:
    return SpecialCause(
        start=note.start,
        end=note.end,
        reason=note.reason,
        metrics=None if note.metric is None else (note.metric,),
        action=note.action,
    )


def _by_time(names: Sequence[str]) -> list[str]:
    """Partitions called after dates by their time, then the others by name."""
    timed = sorted((time, name) for name in names if (time := partition_time(name)) is not None)
    return [*(name for _, name in timed), *sorted(name for name in names if partition_time(name) is None)]


def _digestible(point: Point) -> list[Any]:
    return [point.label, point.time.isoformat(), point.value, point.size]


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:,.6g}"
