"""`xops validate`: a suite over a dataset version, without Airflow."""

from __future__ import annotations

import argparse
from typing import Any

from airflow_provider_xops.commands import _common
from airflow_provider_xops.records import Outcome

__all__ = ["add_parsers"]


def add_parsers(groups: Any, add: _common.Add) -> None:
    """Put the commands of this module into the command line."""
    validate = add(groups, "validate", _validate, "Run an expectation suite over a dataset version.")
    validate.add_argument("table", metavar="TABLE[@VERSION]")
    validate.add_argument("--suite", required=True, help="package.module:function, or a .json or .yaml file")
    validate.add_argument("--partition", help="2013-04-01 or 2013-01-01..2013-03-31 (default: all)")


def _validate(args: argparse.Namespace) -> int:
    from airflow_provider_xops.data.ingest import expand_partitions
    from airflow_provider_xops.lake.tables import resolve_ref
    from airflow_provider_xops.quality.validate import validate

    lake = _common.lake(args)
    table, version = _common.table_at(args.table)
    ref = resolve_ref(lake, table, version, allow_raw=True)
    partitions = expand_partitions(args.partition) if args.partition else None
    report = validate(
        lake, ref, partitions=partitions, suite=args.suite, actor=_common.actor(args), as_of=_common.now()
    )
    lines = [
        f"{ref}: {report.outcome} ({', '.join(f'{n} {word}' for word, n in report.counts.items() if n)})"
    ]
    lines += [
        f"  {check.outcome:<7} {check.check} {check.column or ''} {check.message}".rstrip()
        for check in report.checks
        if check.outcome is not Outcome.PASSED
    ]
    _common.show(args, report.to_json(), "\n".join([*lines, f"report: {report.report_uri}"]))
    return 0 if report.outcome is Outcome.PASSED else 1
