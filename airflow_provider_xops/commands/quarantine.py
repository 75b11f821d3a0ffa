"""`xops quarantine ...`: what is set aside and why, and how mended rows come back."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from airflow_provider_xops.commands import _common
from airflow_provider_xops.records import Outcome, Severity

__all__ = ["add_parsers"]


def add_parsers(groups: Any, add: _common.Add) -> None:
    """Put the commands of this module into the command line."""
    actions = groups.add_parser("quarantine", help="list, export or release bad rows").add_subparsers(
        required=True, metavar="ACTION"
    )
    listing = add(actions, "list", _list, "Count the rows in quarantine by partition and reason.")
    listing.add_argument("table", metavar="TABLE", nargs="?", help="default: every table of the lake")
    listing.add_argument("--partition", help="only this one")

    export = add(actions, "export", _export, "Write the rows of a partition to a file, to be mended there.")
    export.add_argument("table", metavar="TABLE")
    export.add_argument("--partition", required=True)
    export.add_argument("--to", required=True, metavar="FILE", help=".csv, .jsonl or .parquet; a new file")

    release = add(actions, "release", _release, "Bring mended rows back among the accepted ones.")
    release.add_argument("table", metavar="TABLE")
    release.add_argument("--partition", required=True)
    rows = release.add_mutually_exclusive_group(required=True)
    rows.add_argument("--from", dest="file", metavar="FILE", help="a mended export")
    rows.add_argument(
        "--as-they-are", action="store_true", help="all of them unchanged, now that the suite is corrected"
    )
    release.add_argument("--suite", required=True, help="package.module:function, or a .json or .yaml file")
    release.add_argument("--reason", required=True, help="why, for the record")
    release.add_argument("--engine", default="duckdb")
    release.add_argument("--publish", action="store_true", help="publish the partition with them at once")
    release.add_argument("--dry-run", action="store_true", help="say what would be done")


def _list(args: argparse.Namespace) -> int:
    from airflow_provider_xops.quality.quarantined import list_quarantine

    places = list_quarantine(_common.lake(args), args.table, partition=args.partition)
    lines = []
    for place in places:
        batch = f", batch {place.batch}" if place.batch else ""
        note = "  (newer raw data have arrived)" if place.outdated else ""
        lines.append(f"{place.table} {place.partition}{batch}: {place.rows:,} rows of {place.raw}{note}")
        lines += [f"  {count:>8,}  {reason}" for reason, count in place.reasons.items()]
    _common.show(args, [place.to_json() for place in places], "\n".join(lines) or "nothing is in quarantine")
    return 0


def _export(args: argparse.Namespace) -> int:
    from airflow_provider_xops.quality.mended_files import write_rows
    from airflow_provider_xops.quality.quarantined import quarantined_rows_of

    rows = quarantined_rows_of(_common.lake(args), args.table, partition=args.partition)
    write_rows(rows, args.to)
    print(f"{args.to} holds the values of rows: it is up to you who reads it", file=sys.stderr)
    _common.show(args, {"file": args.to, "rows": rows.num_rows}, f"{args.to}: {rows.num_rows:,} rows")
    return 0


def _release(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.read import schema_of
    from airflow_provider_xops.lake.tables import RAW_SUFFIX, base_name, head
    from airflow_provider_xops.quality.mended_files import read_mended
    from airflow_provider_xops.quality.release import release

    lake = _common.lake(args)
    rows = None
    if args.file:
        rows = read_mended(args.file, schema_of(lake, head(lake, f"{base_name(args.table)}{RAW_SUFFIX}")))
    released = release(
        lake,
        args.table,
        partition=args.partition,
        rows=rows,
        suite=args.suite,
        engine=args.engine,
        reason=args.reason,
        actor=_common.actor(args),
        as_of=_common.now(),
        dry_run=args.dry_run,
    )
    said = {"rows": released.rows, "remaining": released.remaining, "dry_run": args.dry_run}
    verb = "would be released" if args.dry_run else "released"
    lines = [f"{released.rows:,} rows {verb}; {released.remaining:,} stay in quarantine"]
    report = released.report
    if report is not None:
        said |= {"report": report.record_id, "outcome": report.outcome.value, "accepted": str(report.dataset)}
        lines.append(f"{report.dataset}: {report.outcome.value}")
        if args.publish:
            from airflow_provider_xops.data.publish import publish

            result = publish(lake, report, actor=_common.actor(args), as_of=_common.now())
            said["published"] = str(result.record.ref)
            lines.append(f"published: {result.record.ref}")
    _common.show(args, said, "\n".join(lines))
    unfit = report is not None and (
        report.outcome is Outcome.ERRORED
        or (report.outcome is Outcome.FAILED and report.severity is Severity.CRITICAL)
    )
    return 1 if unfit else 0
