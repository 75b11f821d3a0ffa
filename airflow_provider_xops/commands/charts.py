"""`xops metrics`, `xops charts` and `xops freshness`: how a table changes, and whether it is on time."""

from __future__ import annotations

import argparse
from typing import Any

from airflow_provider_xops.commands import _common
from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.records import Outcome

__all__ = ["add_parsers"]


def add_parsers(groups: Any, add: _common.Add) -> None:
    """Put the commands of this module into the command line."""
    metrics = add(groups, "metrics", _metrics, "Print what was measured of a table, a partition a line.")
    metrics.add_argument("table", metavar="TABLE[@VERSION]", help="a raw table (flights__raw) usually")
    metrics.add_argument("--metric", help="one series, for example mean:distance (default: list the names)")
    metrics.add_argument("--partition", help="all figures of this partition")
    metrics.add_argument("--measure", action="store_true", help="measure first what was not measured yet")
    metrics.add_argument("--plan", help="a metric plan: package.module:function, or a .json or .yaml file")

    charts = groups.add_parser("charts", help="Control charts: judge a partition, note special causes.")
    kinds = charts.add_subparsers(dest="charts_command", required=True, metavar="COMMAND")
    check = add(kinds, "check", _check, "Judge partitions of a table on its control charts.")
    check.add_argument("table", metavar="TABLE[@VERSION]", help="a raw table (flights__raw) usually")
    check.add_argument("--plan", required=True, help="package.module:function, or a .json or .yaml file")
    check.add_argument("--partition", help="2013-04-01 or 2013-01-01..2013-03-31 (default: the newest)")
    annotate = add(kinds, "annotate", _annotate, "Note a special cause, for all charts of the table.")
    annotate.add_argument("table", metavar="TABLE", help="the table that is charted (flights__raw)")
    annotate.add_argument("--from", dest="start", required=True, help="first date or time (UTC)")
    annotate.add_argument("--to", dest="end", help="last date or time, included (default: it lasts)")
    annotate.add_argument("--reason", required=True, help="what happened; it is drawn on the charts")
    annotate.add_argument("--metric", help="only this metric (default: all)")
    annotate.add_argument(
        "--step", action="store_true", help="the process is another one from then on: limits begin anew"
    )

    fresh = add(groups, "freshness", _freshness, "Say whether a table has what it should have by now.")
    fresh.add_argument("table", metavar="TABLE")
    fresh.add_argument("--every", default="daily", help="hourly, daily (default), weekly, monthly or 15m")
    fresh.add_argument("--cron", help="periods begin at the times of this cron expression")
    fresh.add_argument("--timezone", default="UTC", help="where days begin (default: UTC)")
    fresh.add_argument("--grace", default="0s", help="how long after its period a partition may come: 6h")
    fresh.add_argument("--start", help="the first period (default: that of the first partition)")
    fresh.add_argument("--weekdays", help="only these: mon,tue,wed,thu,fri")
    fresh.add_argument("--holidays", help="no partition is expected on these dates: 2013-12-25,2014-01-01")
    fresh.add_argument("--min-share", type=float, help="at least this share of the usual rows")
    fresh.add_argument("--max-share", type=float, help="at most this share of the usual rows")
    fresh.add_argument("--as-of", help="judge at this moment (default: now)")
    fresh.add_argument("--record", action="store_true", help="record an incident for what is missing or late")


def _metrics(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.tables import resolve_ref
    from airflow_provider_xops.quality.metrics import load_metric_plan, measure
    from airflow_provider_xops.quality.series import History, label_of, series

    lake = _common.lake(args)
    table, version = _common.table_at(args.table)
    ref = resolve_ref(lake, table, version, allow_raw=True)
    if args.measure:
        chosen = [args.partition] if args.partition else None
        plan = load_metric_plan(args.plan)
        measure(lake, ref, partitions=chosen, plan=plan, actor=_common.actor(args), as_of=_common.now())
    if args.metric:
        points = series(lake, ref, args.metric, until=args.partition)
        data: Any = [
            {"point": one.label, "time": one.time.isoformat(), "value": one.value, "size": one.size}
            for one in points
        ]
        _common.show(args, data, "\n".join(f"{one.label}  {_figure(one.value)}" for one in points))
        return 0 if points else _nothing(ref, args.metric)
    history = History.read(lake, ref)
    if args.partition:
        found: dict[str, float | None] = {}
        for record in sorted(history.records, key=lambda one: one.recorded_at):
            if args.partition in (record.partition, label_of(record)):
                found |= record.metrics
        lines = [f"{name}  {_figure(value)}" for name, value in sorted(found.items())]
        _common.show(args, found, "\n".join(lines))
        return 0 if found else _nothing(ref, args.partition)
    count = len({label_of(record) for record in history.records})
    data = {"table": ref.table, "version": ref.version, "points": count, "metrics": list(history.metrics)}
    _common.show(
        args, data, "\n".join([f"{ref}: {count} points of", *(f"  {name}" for name in history.metrics)])
    )
    return 0 if count else _nothing(ref, "anything")


def _check(args: argparse.Namespace) -> int:
    from airflow_provider_xops.data.ingest import expand_partitions
    from airflow_provider_xops.lake.tables import resolve_ref
    from airflow_provider_xops.quality.control import check_partitions, signal_text

    lake = _common.lake(args)
    table, version = _common.table_at(args.table)
    reports = check_partitions(
        lake,
        resolve_ref(lake, table, version, allow_raw=True),
        partitions=expand_partitions(args.partition) if args.partition else None,
        plan=args.plan,
        actor=_common.actor(args),
        as_of=_common.now(),
    )
    lines = []
    for report in reports:
        lines.append(f"{report.table}, {report.partition}: {report.outcome} ({len(report.charts)} charts)")
        lines += [f"  {signal_text(signal)}" for signal in report.signals]
    lines.append(f"report: {reports[-1].report_uri}")
    _common.show(args, [report.to_json() for report in reports], "\n".join(lines))
    return 1 if any(report.outcome is Outcome.FAILED for report in reports) else 0


def _annotate(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.tables import resolve_ref
    from airflow_provider_xops.quality.control import annotate
    from airflow_provider_xops.quality.control_plan import parse_moment

    lake = _common.lake(args)
    note = annotate(
        lake,
        resolve_ref(lake, args.table, allow_raw=True),
        start=parse_moment(args.start),
        end=parse_moment(args.end, end=True) if args.end else None,
        reason=args.reason,
        metric=args.metric,
        action="step" if args.step else "exclude",
        actor=_common.actor(args),
        as_of=_common.now(),
    )
    until = note.end.isoformat() if note.end else "further notice"
    _common.show(
        args,
        note.to_json(),
        f"noted for {note.metric or 'all metrics'} of {note.table},"
        f" {note.start.isoformat()} to {until}: {note.reason}",
    )
    return 0


def _freshness(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.tables import resolve_ref
    from airflow_provider_xops.quality.arrival_schedule import ArrivalSchedule
    from airflow_provider_xops.quality.control_plan import parse_moment
    from airflow_provider_xops.quality.freshness import (
        VolumeRule,
        freshness,
        open_freshness_incidents,
        volume,
    )

    lake = _common.lake(args)
    schedule = ArrivalSchedule(
        every=args.every,
        cron=args.cron,
        timezone=args.timezone,
        grace=args.grace,
        start=args.start,
        weekdays=args.weekdays.split(",") if args.weekdays else None,
        holidays=args.holidays.split(",") if args.holidays else (),
    )
    state = freshness(
        lake, args.table, schedule, as_of=parse_moment(args.as_of) if args.as_of else _common.now()
    )
    volumes = []
    if args.min_share is not None or args.max_share is not None:
        if state.latest is None:
            raise ArgumentError(
                f"{args.table} has nothing whose rows could be counted", code="argument.volume"
            )
        rule = VolumeRule(min_share=args.min_share, max_share=args.max_share)
        volumes = [volume(lake, resolve_ref(lake, args.table, allow_raw=True), state.latest, rule)]
    opened = []
    if args.record:
        opened = open_freshness_incidents(
            lake, state, volumes, actor=_common.actor(args), as_of=_common.now()
        )
    lines = [
        f"{state.table}: {'fresh' if state.fresh else 'not fresh'},"
        f" newest partition {state.latest or 'none'}, {state.present} of {state.expected} expected partitions"
    ]
    lines += [f"  missing {one.partition}, due {one.due_at.isoformat()}" for one in state.missing]
    lines += [f"  late {one.partition}, arrived {one.arrived_at.isoformat()}" for one in state.late]
    lines += [f"  volume {one.partition}: {one.outcome}, {one.message}" for one in volumes]
    lines += [f"  incident {one.record_id}" for one in opened]
    data = state.to_json() | {
        "volume": [{"partition": one.partition, "rows": one.rows, "outcome": one.outcome} for one in volumes]
    }
    _common.show(args, data, "\n".join(lines))
    thin = any(one.outcome is Outcome.FAILED for one in volumes)
    return 0 if state.fresh and not thin else 1


def _nothing(ref: Any, what: str) -> int:
    import sys

    print(f"xops: {what} of {ref} was not measured; add --measure to do it now", file=sys.stderr)
    return 1


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
