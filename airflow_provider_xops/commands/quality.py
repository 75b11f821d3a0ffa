"""`xops validate`: a suite over a dataset version, or a table of a database, without Airflow."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.commands import _common
from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.records import Outcome

if TYPE_CHECKING:
    from airflow_provider_xops.records import ValidationReport

__all__ = ["add_parsers"]

SQL_URL = "XOPS_SQL_URL"


def add_parsers(groups: Any, add: _common.Add) -> None:
    """Put the commands of this module into the command line."""
    validate = add(groups, "validate", _validate, "Run an expectation suite over a dataset version.")
    validate.add_argument("table", metavar="TABLE[@VERSION]")
    validate.add_argument("--suite", required=True, help="package.module:function, or a .json or .yaml file")
    validate.add_argument("--partition", help="2013-04-01 or 2013-01-01..2013-03-31 (default: all)")
    validate.add_argument("--engine", default="duckdb", help="duckdb (default) or pandas")
    validate.add_argument("--samples", default="none", help="bad values in the report: none, masked or full")
    validate.add_argument(
        "--data-docs", action=argparse.BooleanOptionalAction, default=True, help="write Data Docs too"
    )
    validate.add_argument(
        "--sql", action="store_true", help=f"TABLE is one of the database at ${SQL_URL} (an SQLAlchemy URL)"
    )


def _validate(args: argparse.Namespace) -> int:
    report = _of_database(args) if args.sql else _of_lake(args)
    counted = ", ".join(f"{n} {word}" for word, n in report.counts.items() if n)
    lines = [f"{report.dataset}: {report.outcome} ({counted})"]
    lines += [
        " ".join(
            part
            for part in (
                f"  {check.outcome:<7} {check.severity:<8}",
                check.check,
                check.column,
                check.message,
            )
            if part
        )
        for check in report.checks
        if check.outcome is not Outcome.PASSED
    ]
    lines += [f"note: {note}" for note in report.engine_notes]
    lines.append(f"report: {report.report_uri}")
    _common.show(args, report.to_json(), "\n".join(lines))
    return 0 if report.outcome is Outcome.PASSED else 1


def _of_lake(args: argparse.Namespace) -> ValidationReport:
    from airflow_provider_xops.data.ingest import expand_partitions
    from airflow_provider_xops.lake.tables import resolve_ref
    from airflow_provider_xops.quality.validate import validate

    lake = _common.lake(args)
    table, version = _common.table_at(args.table)
    return validate(
        lake,
        resolve_ref(lake, table, version, allow_raw=True),
        partitions=expand_partitions(args.partition) if args.partition else None,
        suite=args.suite,
        engine=args.engine,
        samples=args.samples,
        data_docs=args.data_docs,
        actor=_common.actor(args),
        as_of=_common.now(),
    )


def _of_database(args: argparse.Namespace) -> ValidationReport:
    import sqlalchemy as sa

    from airflow_provider_xops.quality.validate import validate_table

    if args.partition:
        raise ArgumentError(
            "--partition with --sql", code="argument.partition", why="a table there has no partitions",
            todo="leave it out, or use row_condition in the suite",
        )  # fmt: skip
    try:
        engine = sa.create_engine(os.environ[SQL_URL], hide_parameters=True)
    except (KeyError, ImportError, sa.exc.ArgumentError, sa.exc.NoSuchModuleError) as error:
        raise ArgumentError(
            f"${SQL_URL} names no database", code="argument.sql_url", why=type(error).__name__,
            todo="set it to an SQLAlchemy URL, such as postgresql+psycopg2://user:password@host/database",
        ) from None  # fmt: skip
    try:
        return validate_table(
            _common.lake(args),
            sqlalchemy_engine=engine,
            source=engine.dialect.name,
            table=args.table,
            suite=args.suite,
            samples=args.samples,
            data_docs=args.data_docs,
            actor=_common.actor(args),
            as_of=_common.now(),
        )
    finally:
        engine.dispose()
