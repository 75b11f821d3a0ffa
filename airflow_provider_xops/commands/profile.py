"""`xops profile` and `xops suggest`: what a dataset version holds, and the suite or steps that follow."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.commands import _common
from airflow_provider_xops.errors import ArgumentError

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.records import DatasetProfile, DatasetRef

__all__ = ["add_parsers"]


def add_parsers(groups: Any, add: _common.Add) -> None:
    """Put the commands of this module into the command line."""
    made = add(
        groups, "profile", _profile, "Profile a dataset version: figures of every column, and what changed."
    )
    _add_selection(made)
    made.add_argument(
        "--compare-with",
        default="previous",
        metavar="TABLE@VERSION",
        help="previous (default), none, or a version",
    )

    suggest = add(
        groups, "suggest", _suggest, "Suggest an expectation suite, or preparation steps, for review."
    )
    _add_selection(suggest)
    learned = suggest.add_mutually_exclusive_group()
    learned.add_argument(
        "--profiles", type=int, default=1, metavar="N", help="learn from the N newest profiles"
    )
    learned.add_argument(
        "--by-partition", action="store_true",
        help="learn from each partition by itself: for runs that look at one at a time",
    )  # fmt: skip
    learned.add_argument("--steps", action="store_true", help="preparation steps instead of a suite")
    suggest.add_argument(
        "--output", metavar="FILE", help="write there instead of printing; never over a file"
    )


def _add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", metavar="TABLE[@VERSION]")
    parser.add_argument("--partition", help="2013-04-01 or 2013-01-01..2013-03-31 (default: all)")
    parser.add_argument(
        "--values", choices=("none", "masked", "full"), default="none",
        help="texts of rows in the documents; sets of values are suggested from full only",
    )  # fmt: skip
    parser.add_argument("--time-column", metavar="COLUMN", help="whose coverage is looked at")


def _profile(args: argparse.Namespace) -> int:
    lake = _common.lake(args)
    record = _made(args, lake, None if args.compare_with == "none" else args.compare_with)
    lines = [f"{record.dataset}: {record.rows:,} rows, {len(record.columns)} columns"]
    lines += [_line(one) for one in record.columns]
    keys = record.table_facts["keys"]
    lines.append(f"keys: {'; '.join(' + '.join(key) for key in keys) or 'none of one or two columns'}")
    lines += [
        f"schema: {one.column} {one.change} ({one.before or '-'} -> {one.after or '-'}): {one.verdict}"
        for one in record.schema_changes
    ]
    _common.show(args, record.to_json(), "\n".join([*lines, f"report: {record.report_uri}"]))
    return 1 if any(one.verdict == "fail" for one in record.schema_changes) else 0


def _suggest(args: argparse.Namespace) -> int:
    from airflow_provider_xops.quality.profiling.suggestions import steps_of, suite_by_partition, suite_of

    if args.output and Path(args.output).exists():
        raise ArgumentError(
            f"there is a file {args.output}", code="argument.output",
            why="a reviewed suite is never overwritten", todo="name another file",
        )  # fmt: skip
    lake = _common.lake(args)
    if args.steps:
        steps, text = steps_of(lake, _made(args, lake, "previous"))
        data: Any = {"steps": steps}
    else:
        if args.by_partition:
            ref, partitions, options = _asked(args, lake)
            suite = suite_by_partition(lake, ref, partitions, **options)
        else:
            suite = suite_of(lake, _made(args, lake, "previous"), profiles=args.profiles)
        text, data = suite.text, {"name": suite.name, "expectations": list(suite.expectations)}
    if args.output:
        Path(args.output).write_text(text, encoding="utf-8")
        count = len(data.get("steps", data.get("expectations")))
        text = f"wrote {count} {'steps' if args.steps else 'expectations'} to {args.output}; review them"
    _common.show(args, data, text.rstrip("\n"))
    return 0


def _made(args: argparse.Namespace, lake: Lake, compare_with: str | None) -> DatasetProfile:
    from airflow_provider_xops.quality.profiling.profile import profile

    ref, partitions, options = _asked(args, lake)
    return profile(lake, ref, partitions=partitions, compare_with=compare_with, **options)


def _asked(args: argparse.Namespace, lake: Lake) -> tuple[DatasetRef, list[str] | None, dict[str, Any]]:
    from airflow_provider_xops.data.ingest import expand_partitions
    from airflow_provider_xops.lake.tables import resolve_ref

    table, version = _common.table_at(args.table)
    options = {
        "values": args.values,
        "time_column": args.time_column,
        "actor": _common.actor(args),
        "as_of": _common.now(),
    }
    partitions = list(expand_partitions(args.partition)) if args.partition else None
    return resolve_ref(lake, table, version, allow_raw=True), partitions, options


def _line(one: dict[str, Any]) -> str:
    missing = f"{100 * one['null_share']:.3g} % missing" if one["null_share"] else "none missing"
    distinct = one.get("distinct")
    about = "" if distinct is None or distinct["exact"] else "about "
    told = f", {about}{distinct['value']:,} distinct" if distinct else ""
    ends = f", {one['min']} to {one['max']}" if one.get("min") is not None else ""
    return f"  {one['name']} ({one['type']}): {missing}{told}{ends}"
