"""`xops variants`: how the versions of a model that are in service compare."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.commands import _common

if TYPE_CHECKING:
    from airflow_provider_xops.records import MetricFigure
    from airflow_provider_xops.serving.variants_report import VariantFigures

__all__ = ["add_parsers"]


def add_parsers(groups: Any, add: _common.Add) -> None:
    """Put the commands of this module into the command line."""
    shown = add(
        groups, "variants", _variants, "Compare primary, canary and shadow by what the prediction log has."
    )
    shown.add_argument("model")
    shown.add_argument("--alias", default="champion")
    shown.add_argument("--table", help="the prediction log (default: that of the newest serving session)")
    shown.add_argument("--since", metavar="DAY", help="first day, UTC, such as 2026-01-15")
    shown.add_argument("--until", metavar="DAY", help="last day")
    shown.add_argument("--labeled", metavar="TABLE", help="labeled predictions, of `xops join-labels`")
    shown.add_argument("--label", default="label", help="the labels' column in it (default: label)")
    shown.add_argument(
        "--metric", action="append", help="of the labeled rows (may be repeated; default: all of the task)"
    )
    shown.add_argument("--confidence", type=float, default=0.95)


def _variants(args: argparse.Namespace) -> int:
    from airflow_provider_xops.serving.variants_report import variants

    report = variants(
        _common.lake(args),
        model=args.model,
        alias=args.alias,
        table=args.table,
        since=args.since,
        until=args.until,
        labeled=args.labeled,
        label=args.label,
        metrics=args.metric,
        confidence=args.confidence,
    )
    days = f"{report.days[0]} to {report.days[-1]}" if report.days else "no day"
    lines = [f"{report.model}@{report.alias}, {report.log}, {days}"]
    for each in report.variants:
        lines += _lines(each)
    if not report.variants:
        lines.append("no prediction of it in the log")
    _common.show(args, dataclasses.asdict(report), "\n".join(lines))
    return 0


def _lines(each: VariantFigures) -> list[str]:
    share = "" if each.share is None else f", {each.share:.1%} of the answers"
    times = (
        "no times" if each.p50_ms is None else f"p50 {each.p50_ms:.2f} ms, p99 {each.p99_ms or 0.0:.2f} ms"
    )
    lines = [
        f"  {each.variant} v{each.version}: {each.requests} requests{share}, {each.rows} rows, {times}",
        f"    {_figure(each.error_rate)}",
    ]
    if each.mean is not None:
        lines.append(f"    {_figure(each.mean)}")
    if each.compared:
        lines.append(f"    compared with the answer given: {each.compared} rows")
        lines += [f"    {_figure(one)}" for one in (each.agreement, each.difference) if one is not None]
    lines += [f"    {_figure(one)}" for one in each.metrics]
    return lines


def _figure(figure: MetricFigure) -> str:
    value = "none" if figure.value is None else f"{figure.value:.4g}"
    if figure.lower is None or figure.upper is None:
        return f"{figure.metric} {value}"
    return (
        f"{figure.metric} {value} ({figure.confidence:.0%} interval {figure.lower:.4g} to {figure.upper:.4g})"
    )
